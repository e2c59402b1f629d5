/* Lists of one int. A list goes to the next message once nobody else refers to it. What its last
 * user has put into it stays alive until then. */
#ifndef MPSPMD_DELTA_REUSE_H
#define MPSPMD_DELTA_REUSE_H

#include "extension/extension.h"

enum { SPARE_LISTS = 4096 };

struct spare_lists {
    PyObject *lists[SPARE_LISTS];
    size_t n, next;
};

void reuse_free(struct spare_lists *spare);

/* A list of `number`, whose reference it takes over; NULL if that is NULL. Checks at most `*checks`
 * lists for a free one, and then makes a new one. A thousand new lists a step would take longer
 * than the rest of a reply, and start the garbage collector. */
PyObject *reuse_list_of_one(struct spare_lists *spare, PyObject *number, size_t *checks);

#endif
