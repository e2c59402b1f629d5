/* A reply's keys in their order, and the dict of each one's index in it: as edits of what an
 * earlier reply has said. The keys go as places: where they stand in the request's own list. */
#ifndef MPSPMD_DELTA_ORDER_H
#define MPSPMD_DELTA_ORDER_H

#include "delta/message.h"
#include "delta/places.h"

extern const struct codec order_codec, order_codec_index;

/* What a reply has said about its order, as Python keeps it. */
struct reply_order {
    PyObject_HEAD
    PyObject *keys;       /* list */
    PyObject *index;      /* dict, on the end that reads */
    struct slots indices; /* for each of its keys, where in `keys` it is */
    uint64_t digest;
};

/* What a reply is written and read against, and what it says about its own order. */
struct reply_base {
    struct reply_order *order; /* an earlier reply's, or NULL */
    PyObject *keys;            /* its own; without an order the scheduled ones */
    struct places places;
    PyObject *new_keys, *new_index; /* what this reply says, */
    struct slots new_indices;
    bool has_order, has_index, changed; /* whether it does, and something else than the base */
    uint64_t digest;                    /* of all that both ends have made of it */
};

#endif
