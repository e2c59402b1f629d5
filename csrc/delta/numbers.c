#include "delta/numbers.h"

#include <stdlib.h>

PyObject *numbers_share(struct shared_ints *shared, int64_t value) {
    if (!shared->at && !(shared->at = PyMem_Calloc(N_SHARED_INTS, sizeof *shared->at)))
        return PyErr_NoMemory();
    PyObject **place = &shared->at[value];
    *place = PyLong_FromLongLong(value);
    return Py_XNewRef(*place);
}

void numbers_free(struct shared_ints *shared) {
    for (size_t i = 0; shared->at && i < N_SHARED_INTS; i++)
        Py_XDECREF(shared->at[i]);
    PyMem_Free(shared->at);
    shared->at = NULL;
}

PyObject *numbers_list(struct shared_ints *shared, const int64_t *values, size_t n) {
    PyObject *list = PyList_New((Py_ssize_t)n);
    for (size_t i = 0; list && i < n; i++)
        extension_set_item(&list, i, number_object(shared, values[i]));
    return list;
}

bool numbers_reserve(struct ints *ints, size_t n) {
    if (n <= ints->capacity)
        return true;
    size_t capacity = n < 256 ? 256 : n + n / 2;
    int64_t *at = realloc(ints->at, capacity * sizeof *at);
    if (!at)
        return PyErr_NoMemory();
    ints->at = at;
    ints->capacity = capacity;
    return true;
}
