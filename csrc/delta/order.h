/* A reply's keys in their order, and the dict of each one's index in it: as edits of what an
 * earlier reply has said. The keys go as places: where they stand in the request's own list. */
#ifndef MPSPMD_DELTA_ORDER_H
#define MPSPMD_DELTA_ORDER_H

#include "extension/extension.h"
#include "packing/edits.h"

#define NO_PLACE UINT32_MAX

/* Where keys stand in the list of those that were scheduled. */
struct places {
    PyObject *scheduled; /* list: keys of the request that is answered */
    PyObject *own;       /* NULL, or the copy of the caller's list that `scheduled` is */
    uint32_t *table;     /* places by their keys' hashes; NULL before places_make() */
    size_t mask;         /* the table's size - 1 */
};

/* Copies the caller's list, once: Python code that runs between two fields, or later, may change
 * the caller's. False with an exception set. */
bool places_own(struct places *places);

/* Makes the table, once. False with an exception set. */
bool places_make(struct places *places);

/* NO_PLACE for a key that wasn't scheduled. */
uint32_t places_of(const struct places *places, PyObject *key);

void places_free(struct places *places);

/* What a reply says about its order. Python keeps it for later replies. */
struct reply_order {
    PyObject_HEAD
    PyObject *keys;       /* list */
    PyObject *index;      /* dict; only the reading end has it */
    struct slots indices; /* for each of its keys, where in `keys` it is */
    uint64_t digest;
};

/* What a reply is encoded against, and what it says about its own order. */
struct reply_base {
    struct reply_order *order; /* an earlier reply's, or NULL */
    PyObject *keys;            /* that order's keys, or else the scheduled ones */
    struct places places;
    PyObject *new_keys, *new_index; /* this reply's */
    struct slots new_indices;
    bool has_order, has_index; /* whether this reply has these fields, */
    bool changed;              /* and whether they differ from the base */
    uint64_t digest;           /* of what both ends have made of this reply's order */
};

#endif
