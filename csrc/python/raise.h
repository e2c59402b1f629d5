/* The exceptions that go with what C has found. */
#ifndef MPSPMD_PYTHON_RAISE_H
#define MPSPMD_PYTHON_RAISE_H

#include "extension/extension.h"
#include "ring/ring.h"

/* Of a ring that has ended or is corrupt; `self` is of one of the module's types. Always NULL. */
PyObject *raise_result(PyObject *self, const struct ring *ring, enum ring_result result);

/* OSError; always NULL. */
PyObject *raise_errno(int error);

/* The same after a segment was opened, which may be none: `what` it should have been. */
PyObject *raise_segment(int error, int fd, const char *what);

/* What is refused while a method of the same object waits: it let go of the interpreter's lock for
 * other threads, and for signals' handlers. */
void raise_busy(const char *what, const char *does);

#endif
