/* Exceptions for errors that C code has found. */
#ifndef MPSPMD_PYTHON_RAISE_H
#define MPSPMD_PYTHON_RAISE_H

#include "extension/extension.h"
#include "ring/ring.h"

/* Of a ring that has ended or is corrupt; `self` is of one of the module's types. Always NULL. */
PyObject *raise_result(PyObject *self, const struct ring *ring, enum ring_result result);

/* OSError; always NULL. */
PyObject *raise_errno(int error);

/* For a segment that can't be mapped. `what`: the kind of segment that was expected. */
PyObject *raise_segment(int error, int fd, const char *what);

/* For a call during another method of the same object. That method waits without the interpreter's
 * lock, so other threads and signals' handlers run. Always NULL. */
PyObject *raise_busy(const char *what, const char *does);

/* The exception that is set, with its traceback, as an object; none is set any more. NULL if there
 * was none. */
PyObject *raise_taken(void);

/* Sets again the exception that raise_taken() has returned (or NULL for none). If another one has
 * been raised since then, that one stays set, and `error` is dropped. Takes the reference. Returns
 * whether no exception is set. */
bool raise_again(PyObject *error, bool raised_another);

#endif
