/* Methods' arguments as C's numbers. */
#ifndef MPSPMD_PYTHON_ARGUMENTS_H
#define MPSPMD_PYTHON_ARGUMENTS_H

#include "extension/extension.h"

/* For the "O&" of PyArg_Parse…(): a number from 0 to the largest that fits, or OverflowError; "I"
 * and "K" cut off what doesn't fit. */
int argument_uint16(PyObject *object, void *number);
int argument_uint32(PyObject *object, void *number);
int argument_uint64(PyObject *object, void *number);

/* For an argument that may be None: `*place` gets it, or NULL. False, with an exception set, for an
 * object of another type. */
bool argument_optional(PyObject *argument, PyTypeObject *type, void *place);

/* Nanoseconds of CLOCK_MONOTONIC from seconds (a float, an int, or None for never); 0 on error. */
uint64_t argument_deadline(PyObject *timeout);

/* False, with an exception set, unless `wait` is one of the strategies. */
bool argument_is_strategy(int wait);

#endif
