/* Plain values as bytes, for small messages, at a tenth of a pickle's cost. */
#ifndef MPSPMD_PYTHON_VALUES_H
#define MPSPMD_PYTHON_VALUES_H

#include "extension/extension.h"

/* The bytes that a plain value takes packed, or -1 for any other. */
Py_ssize_t values_size(PyObject *value);

/* Packs a value that values_size() has measured. No Python code may run in between. */
void values_pack(void *memory, PyObject *value);

/* A new value; NotImplemented for bytes that aren't packed; NULL and ValueError for damaged ones.
 */
PyObject *values_unpack(const void *bytes, size_t length);

#endif
