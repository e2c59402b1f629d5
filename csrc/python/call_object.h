/* Call: a request whose replies are still coming. */
#ifndef MPSPMD_PYTHON_CALL_OBJECT_H
#define MPSPMD_PYTHON_CALL_OBJECT_H

#include "python/module.h"
#include "wait/strategy.h"

/* Objects that are NULL are None in Python. call_object.c walks through them, from `step` to
 * `reply_context`. */
struct call_object {
    PyObject_HEAD
    PyObject *step, *method, *ranks, *deadline;
    PyObject *replies; /* a list with a place for each rank */
    PyObject *error, *errors;
    PyObject *kept_future;
    PyObject *later, *closes;
    PyObject *reply_context;
    double began;
    Py_ssize_t asked, missing;
    unsigned long long key;
    struct waiting waiting; /* for the next message; it goes on over reads that end without one */
    char done, keeps_late;
};

/* A new call of `type`, which is Call or derives from it. The garbage collector may run. The step,
 * when it began, and the key's part that is the message's size, are set later. */
struct call_object *call_new(struct module_state *state, PyTypeObject *type, PyObject *method,
                             PyObject *ranks, PyObject *deadline, Py_ssize_t n_ranks);

/* Calls with the same key are expected to take equally long. `bytes`: of the request, 0 if it is in
 * several parts. */
void call_set_size(struct call_object *call, size_t bytes);

#endif
