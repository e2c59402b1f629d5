/* Python's ints as C's numbers, and back. */
#ifndef MPSPMD_DELTA_NUMBERS_H
#define MPSPMD_DELTA_NUMBERS_H

#include "extension/extension.h"

enum { N_SHARED_INTS = 1 << 15 };

/* Int objects from 0 on, because each step needs the same ones. Made at their first use. */
struct shared_ints {
    PyObject **at; /* NULL before the first */
};

PyObject *numbers_share(struct shared_ints *shared, int64_t value); /* makes one */
void numbers_free(struct shared_ints *shared);

static inline PyObject *number_object(struct shared_ints *shared, int64_t value) {
    if ((uint64_t)value >= N_SHARED_INTS)
        return PyLong_FromLongLong(value);
    PyObject *object = shared->at ? shared->at[value] : NULL;
    return object ? Py_NewRef(object) : numbers_share(shared, value);
}

PyObject *numbers_list(struct shared_ints *shared, const int64_t *values, size_t n);

struct ints {
    int64_t *at;
    size_t capacity;
};

bool numbers_reserve(struct ints *ints, size_t n); /* false with an exception set */

/* Reads an int of one digit, without a call. */
static inline bool number_of_small(PyObject *object, int64_t *value) {
    const PyLongObject *number = (const PyLongObject *)object;
#if PY_VERSION_HEX >= 0x030C0000
    if (!PyUnstable_Long_IsCompact(number))
        return false;
    *value = PyUnstable_Long_CompactValue(number);
#else
    Py_ssize_t sign = Py_SIZE(object);
    if (sign < -1 || sign > 1)
        return false;
    *value = sign * (int64_t)number->ob_digit[0];
#endif
    return true;
}

/* An exact int of up to 64 bits; bools and numpy's ints are other types. */
static inline bool number_of(PyObject *object, int64_t *value) {
    if (!PyLong_CheckExact(object))
        return false;
    if (number_of_small(object, value))
        return true;
    int overflow;
    *value = PyLong_AsLongLongAndOverflow(object, &overflow);
    return !overflow;
}

/* False: not all of them are ints of up to 64 bits. */
static inline bool numbers_of(PyObject *list, int64_t *values, Py_ssize_t n) {
    for (Py_ssize_t i = 0; i < n; i++)
        if (!number_of(PyList_GET_ITEM(list, i), &values[i]))
            return false;
    return true;
}

#endif
