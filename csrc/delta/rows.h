/* The rows (requests) that both ends of a codec know, and the orders in which they came. Both ends
 * change them in the same way and sequence, so a slot means the same row on either side. */
#ifndef MPSPMD_DELTA_ROWS_H
#define MPSPMD_DELTA_ROWS_H

#include "extension/extension.h"
#include "packing/digest.h"
#include "packing/edits.h"

enum { N_ORDERS = 4 }; /* how many batches may take turns without sending their orders anew */

enum column { COLUMN_COUNT, COLUMN_PROGRESS, COLUMN_TREND, COLUMN_TREND_STEP, N_COLUMNS };

/* An order in which rows were scheduled. The objects are copied when they are handed out. */
struct order {
    struct slots slots;
    PyObject *keys;   /* list; NULL: not made yet */
    PyObject *counts; /* the decoder's dict; NULL: not made yet */
    uint64_t epoch;   /* of the rows when the counts and the digest were right; 0: never */
    uint64_t digest;  /* of the counts and their slots */
};

/* A row keeps its slot until it ends. */
struct rows {
    PyObject *slot_of; /* dict: key -> slot */
    PyObject **keys;   /* by slot; NULL: free */
    int64_t *columns[N_COLUMNS];
    struct slots *tokens; /* by slot: int32_t, as FIELD_TAILS has sent them */
    size_t n_slots, capacity;
    struct slots free;
    struct order *orders[N_ORDERS]; /* the newest first */
    uint64_t epoch;                 /* how many messages have changed any count */
};

bool rows_open(struct rows *rows);
void rows_close(struct rows *rows);
bool rows_reset(struct rows *rows);
/* A row's slot, -1 if there is none, -2 with an exception set. */
int64_t rows_find(const struct rows *rows, PyObject *key);
/* -1 with an exception set. */
int64_t rows_add(struct rows *rows, PyObject *key);
bool rows_end(struct rows *rows, uint32_t slot);
bool rows_alive(const struct rows *rows, const struct slots *slots);     /* all of them */
PyObject *rows_keys(const struct rows *rows, const struct slots *slots); /* a new list */
/* Makes an order the newest: the one at `place`, or a new one if that is -1. */
struct order *rows_remember(struct rows *rows, const struct slots *slots, int place);

/* As slots_resize() and slots_copy(): false with a MemoryError set. */
bool rows_resize_slots(struct slots *slots, size_t n);
bool rows_copy_slots(struct slots *to, const struct slots *from);

/* NULL if no row has this slot. */
static inline PyObject *rows_key(const struct rows *rows, uint64_t slot) {
    return slot < rows->n_slots ? rows->keys[slot] : NULL;
}

/* Whether two lists have the very same objects, which makes them equal. */
static inline bool rows_same_items(PyObject *a, PyObject *b) {
    Py_ssize_t n = PyList_GET_SIZE(a);
    return n == PyList_GET_SIZE(b) &&
           (n == 0 || memcmp(PySequence_Fast_ITEMS(a), PySequence_Fast_ITEMS(b),
                             (size_t)n * sizeof(PyObject *)) == 0);
}

/* A row's part in the digest of the state. The digest is a sum of parts, so the processor computes
 * them in parallel. Mixing the product's halves makes a part linear in neither the value nor the
 * slot: the drifts of several rows would cancel in a sum of linear parts. */
static inline uint64_t rows_digest_cell(uint32_t slot, int64_t value) {
    __extension__ unsigned __int128 product =
        (unsigned __int128)((uint64_t)value ^ UINT64_C(0xA0761D6478BD642F)) *
        (slot ^ UINT64_C(0xE7037ED1A0B428DB));
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* Stores a row's number. Returns its part in the digest. */
static inline uint64_t rows_set(struct rows *rows, enum column column, uint32_t slot,
                                int64_t value) {
    rows->columns[column][slot] = value;
    return rows_digest_cell(slot, value);
}

/* A column's part in the digest, from the sum of its rows'. */
static inline uint64_t rows_digest_column(enum column column, uint64_t cells) {
    return digest_word(cells, column);
}

#endif
