/* What recv() returns: a message that has come, as a tuple. */
#ifndef MPSPMD_PYTHON_RECEIVED_H
#define MPSPMD_PYTHON_RECEIVED_H

#include "python/inbox_object.h"

/* The message that message_receive() has found in ring `i`. NULL with an exception set. */
PyObject *received_take(struct inbox_object *inbox, Py_ssize_t i);

#endif
