/* Where keys stand in the list of those that were scheduled: their places. */
#ifndef MPSPMD_DELTA_PLACES_H
#define MPSPMD_DELTA_PLACES_H

#include "extension/extension.h"

#define NO_PLACE UINT32_MAX

struct places {
    PyObject *scheduled; /* list: keys of the request that is answered */
    PyObject *own;       /* NULL, or the copy of the caller's list that `scheduled` is */
    uint32_t *table;     /* places by their keys' hashes; NULL before places_make() */
    size_t mask;         /* the table's size - 1 */
};

/* Makes a copy of the caller's list, once: code of Python's, called between two fields or later,
 * may change the caller's. False with an exception set. */
bool places_own(struct places *places);

/* Makes the table, once. False with an exception set. */
bool places_make(struct places *places);

/* NO_PLACE for a key that wasn't scheduled. */
uint32_t places_of(const struct places *places, PyObject *key);

void places_free(struct places *places);

#endif
