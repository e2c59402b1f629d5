/* Lists of one int that are handed out again when nobody else has them any more: to the next user
 * they are new. What a user has put into one stays alive until it is checked for a later message.
 */
#ifndef MPSPMD_DELTA_REUSE_H
#define MPSPMD_DELTA_REUSE_H

#include "extension/extension.h"

enum { SPARE_LISTS = 4096 };

/* Lists of one int that were handed out, and may be again. */
struct spare_lists {
    PyObject *lists[SPARE_LISTS];
    size_t n, next;
};

void reuse_free(struct spare_lists *spare);

/* A list of one int, which it steals; NULL if that is NULL. Checks at most `*checks` lists for one
 * that nobody has any more, and then makes a new one: a thousand new ones a step take longer to
 * make than the rest of a reply, and wake the garbage collector. */
PyObject *reuse_list_of_one(struct spare_lists *spare, PyObject *number, size_t *checks);

#endif
