/* Values by themselves: a code, and what it says. What has none is put aside, for a pickle. */
#include "delta.h"

#include <string.h>

/* The code of a value, or of what it may be. */
static enum code code_of(PyObject *value) {
    if (value == Py_None)
        return CODE_NONE;
    if (PyBool_Check(value))
        return value == Py_True ? CODE_TRUE : CODE_FALSE;
    if (PyLong_CheckExact(value))
        return CODE_INT;
    if (PyList_CheckExact(value))
        return PyList_GET_SIZE(value) == 0 ? CODE_LIST : CODE_INTS;
    if (PyDict_CheckExact(value) && PyDict_GET_SIZE(value) == 0)
        return CODE_DICT;
    if (PyUnicode_CheckExact(value))
        return CODE_TEXT;
    if (PyFloat_CheckExact(value))
        return CODE_FLOAT;
    if (PySet_CheckExact(value))
        return PySet_GET_SIZE(value) == 0 ? CODE_SET : CODE_INT_SET;
    if (PyTuple_CheckExact(value) && PyTuple_GET_SIZE(value) == 0)
        return CODE_TUPLE;
    return CODE_COLD;
}

bool put_cold(struct step *step, PyObject *value) {
    if (!step->cold && !(step->cold = PyList_New(0)))
        return false;
    pack_byte(&step->out, CODE_COLD);
    return PyList_Append(step->cold, value) == 0;
}

/* Any list, or a set's list. One of other things than ints goes cold. */
static bool put_int_list(struct step *step, PyObject *list, enum code code, PyObject *value) {
    Py_ssize_t n = PyList_GET_SIZE(list);
    if (!ints_reserve(&step->actual, (size_t)n))
        return false;
    if (!ints_of(list, step->actual.at, n))
        return put_cold(step, value);
    pack_byte(&step->out, (uint8_t)code);
    pack_varint(&step->out, (uint64_t)n);
    pack_ints(&step->out, step->actual.at, (size_t)n);
    return true;
}

static bool put_int_set(struct step *step, PyObject *set) {
    PyObject *list = PySequence_List(set);
    bool put = list && put_int_list(step, list, CODE_INT_SET, set);
    Py_XDECREF(list);
    return put;
}

static PyObject *get_int_list(struct step *step) {
    size_t n = unpack_length(&step->in);
    if (!ints_reserve(&step->actual, n))
        return NULL;
    unpack_ints(&step->in, step->actual.at, n);
    return step->in.bad ? NULL : int_list(step->module, step->actual.at, n);
}

static PyObject *get_int_set(struct step *step) {
    PyObject *list = get_int_list(step);
    PyObject *set = list ? PySet_New(list) : NULL;
    Py_XDECREF(list);
    return set;
}

static PyObject *get_float(struct step *step) {
    double number;
    const uint8_t *bytes = unpack_bytes(&step->in, sizeof number);
    if (!bytes)
        return NULL;
    memcpy(&number, bytes, sizeof number);
    return PyFloat_FromDouble(number);
}

const char *text_of(PyObject *text, Py_ssize_t *length) {
    const char *bytes = PyUnicode_AsUTF8AndSize(text, length);
    if (!bytes)
        PyErr_Clear(); /* lone surrogates: let pickle have it */
    return bytes;
}

PyObject *get_text(struct step *step, size_t length) {
    const uint8_t *text = unpack_bytes(&step->in, length);
    return text ? PyUnicode_FromStringAndSize((const char *)text, (Py_ssize_t)length) : NULL;
}

static bool put_text(struct step *step, PyObject *value) {
    Py_ssize_t length;
    const char *text = text_of(value, &length);
    if (!text)
        return put_cold(step, value);
    pack_byte(&step->out, CODE_TEXT);
    pack_varint(&step->out, (uint64_t)length);
    pack_bytes(&step->out, text, (size_t)length);
    return true;
}

bool put_plain(struct step *step, PyObject *value) {
    enum code code = code_of(value);
    int64_t number = 0;
    if (code == CODE_INTS)
        return put_int_list(step, value, CODE_INTS, value);
    if (code == CODE_INT_SET)
        return put_int_set(step, value);
    if (code == CODE_TEXT)
        return put_text(step, value);
    if (code == CODE_COLD || (code == CODE_INT && !int_of(value, &number)))
        return put_cold(step, value);
    pack_byte(&step->out, (uint8_t)code);
    if (code == CODE_INT)
        pack_signed(&step->out, number);
    if (code == CODE_FLOAT)
        pack_bytes(&step->out, &(double){PyFloat_AS_DOUBLE(value)}, sizeof(double));
    return true;
}

/* When the cold part couldn't be rebuilt, None stands for all of it, and the message is dropped. */
static PyObject *get_next_cold(struct step *step) {
    if (!step->cold)
        return Py_NewRef(Py_None);
    PyObject *value = PyList_GetItem(step->cold, step->next_cold++);
    return value ? Py_NewRef(value) : NULL;
}

PyObject *get_plain(struct step *step, uint8_t code) {
    switch (code) {
    case CODE_NONE:
        return Py_NewRef(Py_None);
    case CODE_FALSE:
        return Py_NewRef(Py_False);
    case CODE_TRUE:
        return Py_NewRef(Py_True);
    case CODE_INT:
        return int_object(step->module, unpack_signed(&step->in));
    case CODE_LIST:
        return PyList_New(0);
    case CODE_DICT:
        return PyDict_New();
    case CODE_SET:
        return PySet_New(NULL);
    case CODE_TUPLE:
        return PyTuple_New(0);
    case CODE_TEXT:
        return get_text(step, unpack_length(&step->in));
    case CODE_INTS:
        return get_int_list(step);
    case CODE_COLD:
        return get_next_cold(step);
    case CODE_FLOAT:
        return get_float(step);
    case CODE_INT_SET:
        return get_int_set(step);
    }
    step->in.bad = true;
    return NULL;
}
