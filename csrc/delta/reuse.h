/* Lists and dicts that are handed out again when whoever had them has let go of them: to the next
 * user they are new. What a user has put into one stays alive until the next message. */
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

/* The last copy of a list or dict that was handed out. */
struct last_copy {
    PyObject *object;
    uint64_t version; /* a dict's: as it was then */
};

/* A copy, or if the last one has come back as it was, that. */
PyObject *reuse_list(struct last_copy *last, PyObject *list);
PyObject *reuse_dict(struct last_copy *last, PyObject *dict);

/* Two lists of the very same objects: they are equal, whatever the objects are. */
static inline bool reuse_has_same_items(PyObject *a, PyObject *b) {
    Py_ssize_t n = PyList_GET_SIZE(a);
    return n == PyList_GET_SIZE(b) &&
           (n == 0 || memcmp(PySequence_Fast_ITEMS(a), PySequence_Fast_ITEMS(b),
                             (size_t)n * sizeof(PyObject *)) == 0);
}

#endif
