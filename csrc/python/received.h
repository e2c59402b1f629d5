/* What recv() returns: a message that has come, as a tuple. */
#ifndef MPSPMD_PYTHON_RECEIVED_H
#define MPSPMD_PYTHON_RECEIVED_H

#include "python/inbox_object.h"

/* Polls every ring once. A message; or NULL, with an exception set or if there is no message. */
PyObject *received_poll(struct inbox_object *inbox);

#endif
