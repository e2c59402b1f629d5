/* Plain values as bytes: what a small message consists of, at a tenth of a pickle's cost. */
#ifndef MPSPMD_PYTHON_VALUES_H
#define MPSPMD_PYTHON_VALUES_H

#include "extension/extension.h"

/* The bytes that a plain value takes packed, or -1 for any other. */
Py_ssize_t values_size(PyObject *value);

/* Packs a value that has been measured, while no code of Python's has run since. */
void values_pack(void *memory, PyObject *value);

/* A new value; NotImplemented for bytes that aren't packed; NULL and ValueError for damaged ones.
 */
PyObject *values_unpack(const void *bytes, size_t length);

/* pack() and unpack(). */
extern PyMethodDef values_methods[];

#endif
