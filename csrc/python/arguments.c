#include "python/arguments.h"

#include <math.h>
#include <string.h>

#include "ring/clock.h"
#include "wait/strategy.h"

static bool to_number(PyObject *object, unsigned long long largest, unsigned long long *number) {
    *number = PyLong_AsUnsignedLongLong(object);
    if (PyErr_Occurred())
        return false;
    if (*number > largest)
        PyErr_Format(PyExc_OverflowError, "%llu: at most %llu", *number, largest);
    return *number <= largest;
}

int argument_uint16(PyObject *object, void *number) {
    unsigned long long value;
    bool fits = to_number(object, UINT16_MAX, &value);
    *(uint16_t *)number = (uint16_t)value;
    return fits;
}

int argument_uint32(PyObject *object, void *number) {
    unsigned long long value;
    bool fits = to_number(object, UINT32_MAX, &value);
    *(uint32_t *)number = (uint32_t)value;
    return fits;
}

int argument_uint64(PyObject *object, void *number) {
    unsigned long long value;
    bool fits = to_number(object, UINT64_MAX, &value);
    *(uint64_t *)number = value;
    return fits;
}

bool argument_optional(PyObject *argument, PyTypeObject *type, void *place) {
    PyObject *object = argument == Py_None ? NULL : argument;
    /* `*place` is a pointer to another type. The compiler may assume that an assignment of a
     * PyObject * leaves it unchanged, and GCC does. It makes no such assumption about a copy. */
    memcpy(place, &object, sizeof object);
    if (argument == Py_None || PyObject_TypeCheck(argument, type))
        return true;
    return PyErr_Format(PyExc_TypeError, "%R: must be a %s, or None", argument, type->tp_name);
}

uint64_t argument_deadline(PyObject *timeout) {
    if (timeout == NULL || timeout == Py_None)
        return UINT64_MAX / 2;
    double seconds = PyFloat_AsDouble(timeout);
    if (PyErr_Occurred())
        return 0;
    if (isnan(seconds)) {
        PyErr_SetString(PyExc_ValueError, "timeout is not a number");
        return 0;
    }
    if (seconds > 1e9)
        return UINT64_MAX / 2;
    return monotonic_ns() + (uint64_t)(seconds > 0 ? seconds * 1e9 : 0);
}

bool argument_is_strategy(int wait) {
    if (wait >= WAIT_AUTO && wait <= WAIT_AWAKE)
        return true;
    return PyErr_Format(PyExc_ValueError,
                        "wait=%d: must be WAIT_AUTO, _SPIN, _YIELD, _PARK or _AWAKE", wait);
}
