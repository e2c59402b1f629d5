/* A reply's keys in their order, and the dict of each one's index in it: as what has changed since
 * an earlier reply. A key that stands at another index is sent as its place in the request's own
 * list. */
#ifndef MPSPMD_DELTA_ORDER_H
#define MPSPMD_DELTA_ORDER_H

#include "extension/extension.h"
#include "packing/edits.h"

/* What a reply has said about its order. Python keeps it for later replies. Never changed. */
struct reply_order {
    PyObject_HEAD
    PyObject *keys;       /* list */
    PyObject *index;      /* dict; only the reading end has it */
    struct slots indices; /* the dict's values, in its order */
    uint64_t digest;
};

/* What a reply is encoded against, and what it says about its own order. */
struct reply_base {
    struct reply_order *order; /* an earlier reply's, or NULL */
    PyObject *scheduled;       /* list: keys of the request that is answered */
    PyObject *keys;            /* list: that order's keys, or else a copy of the scheduled ones */
    PyObject *new_keys, *new_index; /* this reply's */
    struct slots new_indices;
    bool has_index; /* whether this reply has it */
    bool changed;   /* whether its order isn't the earlier reply's */
};

#endif
