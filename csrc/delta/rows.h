/* The rows (requests) that both ends of a codec know, and the orders in which they came. Both ends
 * do the same to them in the same order, so that a slot means the same row on either side. */
#ifndef MPSPMD_DELTA_ROWS_H
#define MPSPMD_DELTA_ROWS_H

#include "extension/extension.h"
#include "packing/digest.h"
#include "packing/edits.h"

enum { N_ORDERS = 4 }; /* as many batches may take turns before orders are sent anew */

enum column { COLUMN_COUNT, COLUMN_PROGRESS, COLUMN_TREND, COLUMN_TREND_STEP, N_COLUMNS };

/* An order of rows that was scheduled; with what was decoded for it, to be copied. */
struct order {
    struct slots slots;
    PyObject *keys;   /* list, never handed out; NULL: to be made when it is needed */
    PyObject *counts; /* the same for the decoder's dict */
    uint64_t
        epoch;     /* counts, total and digest are right while no count has changed since; 0: not */
    int64_t total; /* of all counts, */
    uint64_t digest; /* and of them and their slots */
};

struct tokens {
    int32_t *at;
    size_t n, capacity;
};

/* A row's slot stays its own until the row ends. */
struct rows {
    PyObject *slot_of; /* dict: key -> slot */
    PyObject **keys;   /* by slot; NULL: free */
    int64_t *columns[N_COLUMNS];
    struct tokens *tokens;
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
bool rows_alive(const struct rows *rows, const struct slots *slots);
PyObject *rows_keys(const struct rows *rows, const struct slots *slots); /* a new list */
/* The order becomes the newest; `place` is its place among the others, or -1 for a new one. */
struct order *rows_remember(struct rows *rows, const struct slots *slots, int place);

/* As slots_resize() and slots_copy(): false with a MemoryError set. */
bool rows_resize_slots(struct slots *slots, size_t n);
bool rows_copy_slots(struct slots *to, const struct slots *from);

/* Two lists of the very same objects: they are equal, whatever the objects are. */
static inline bool rows_same_items(PyObject *a, PyObject *b) {
    Py_ssize_t n = PyList_GET_SIZE(a);
    return n == PyList_GET_SIZE(b) &&
           (n == 0 || memcmp(PySequence_Fast_ITEMS(a), PySequence_Fast_ITEMS(b),
                             (size_t)n * sizeof(PyObject *)) == 0);
}

/* A row's part in the digest of the state, which is a sum of these: they may be computed in any
 * order, and none waits for another. The product's halves are mixed, so that a part isn't linear in
 * the value nor in the slot: drifts of several rows would cancel in a sum of such parts. */
static inline uint64_t rows_digest_cell(uint32_t slot, int64_t value) {
    __extension__ unsigned __int128 product =
        (unsigned __int128)((uint64_t)value ^ UINT64_C(0xA0761D6478BD642F)) *
        (slot ^ UINT64_C(0xE7037ED1A0B428DB));
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* and a column's, from its cells'. */
static inline uint64_t rows_digest_column(enum column column, uint64_t cells) {
    return digest_word(cells, column);
}

#endif
