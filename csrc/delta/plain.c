#include "delta/plain.h"

#include <string.h>

bool plain_put_cold(struct message *message, PyObject *value) {
    if (!message->cold && !(message->cold = PyList_New(0)))
        return false;
    pack_byte(&message->out, CODE_COLD);
    return PyList_Append(message->cold, value) == 0;
}

/* `value`: the list itself, or the set that it was made from. Goes cold if not all are ints. */
static bool put_int_list(struct message *message, PyObject *list, enum code code, PyObject *value) {
    Py_ssize_t n = PyList_GET_SIZE(list);
    if (!numbers_reserve(&message->scratch.actual, (size_t)n))
        return false;
    if (!numbers_of(list, message->scratch.actual.at, n))
        return plain_put_cold(message, value);
    pack_byte(&message->out, (uint8_t)code);
    pack_varint(&message->out, (uint64_t)n);
    pack_ints(&message->out, message->scratch.actual.at, (size_t)n);
    return true;
}

static bool put_int_set(struct message *message, PyObject *set) {
    PyObject *list = PySequence_List(set);
    bool put = list && put_int_list(message, list, CODE_INT_SET, set);
    Py_XDECREF(list);
    return put;
}

static PyObject *get_int_list(struct message *message) {
    size_t n = unpack_length(&message->in);
    if (!numbers_reserve(&message->scratch.actual, n))
        return NULL;
    unpack_ints(&message->in, message->scratch.actual.at, n);
    return message->in.bad ? NULL
                           : numbers_list(&message->module->ints, message->scratch.actual.at, n);
}

static PyObject *get_int_set(struct message *message) {
    PyObject *list = get_int_list(message);
    PyObject *set = list ? PySet_New(list) : NULL;
    Py_XDECREF(list);
    return set;
}

static PyObject *get_float(struct message *message) {
    double number;
    const uint8_t *bytes = unpack_bytes(&message->in, sizeof number);
    if (!bytes)
        return NULL;
    memcpy(&number, bytes, sizeof number);
    return PyFloat_FromDouble(number);
}

const char *plain_text_of(PyObject *text, Py_ssize_t *length) {
    const char *bytes = PyUnicode_AsUTF8AndSize(text, length);
    if (!bytes)
        PyErr_Clear(); /* it has lone surrogates, which pickle can carry */
    return bytes;
}

PyObject *plain_get_text(struct message *message, size_t length) {
    const uint8_t *text = unpack_bytes(&message->in, length);
    return text ? PyUnicode_FromStringAndSize((const char *)text, (Py_ssize_t)length) : NULL;
}

static bool put_text(struct message *message, PyObject *value) {
    Py_ssize_t length;
    const char *text = plain_text_of(value, &length);
    if (!text)
        return plain_put_cold(message, value);
    pack_byte(&message->out, CODE_TEXT);
    pack_sized(&message->out, text, (size_t)length);
    return true;
}

static bool put_code(struct message *message, enum code code) {
    pack_byte(&message->out, (uint8_t)code);
    return true;
}

bool plain_put(struct message *message, PyObject *value) {
    int64_t number;
    if (value == Py_None)
        return put_code(message, CODE_NONE);
    if (PyBool_Check(value))
        return put_code(message, value == Py_True ? CODE_TRUE : CODE_FALSE);
    if (number_of(value, &number)) {
        put_code(message, CODE_INT);
        pack_signed(&message->out, number);
        return true;
    }
    if (PyList_CheckExact(value))
        return PyList_GET_SIZE(value) ? put_int_list(message, value, CODE_INTS, value)
                                      : put_code(message, CODE_LIST);
    if (PyDict_CheckExact(value) && PyDict_GET_SIZE(value) == 0)
        return put_code(message, CODE_DICT);
    if (PyUnicode_CheckExact(value))
        return put_text(message, value);
    if (PyFloat_CheckExact(value)) {
        put_code(message, CODE_FLOAT);
        pack_bytes(&message->out, &(double){PyFloat_AS_DOUBLE(value)}, sizeof(double));
        return true;
    }
    if (PySet_CheckExact(value))
        return PySet_GET_SIZE(value) ? put_int_set(message, value) : put_code(message, CODE_SET);
    if (PyTuple_CheckExact(value) && PyTuple_GET_SIZE(value) == 0)
        return put_code(message, CODE_TUPLE);
    return plain_put_cold(message, value);
}

/* None if the cold part couldn't be unpickled: the caller drops the message then. */
static PyObject *get_next_cold(struct message *message) {
    if (!message->cold)
        return Py_NewRef(Py_None);
    PyObject *value = PyList_GetItem(message->cold, message->next_cold++);
    return value ? Py_NewRef(value) : NULL;
}

PyObject *plain_get(struct message *message, uint8_t code) {
    switch (code) {
    case CODE_NONE:
        return Py_NewRef(Py_None);
    case CODE_FALSE:
        return Py_NewRef(Py_False);
    case CODE_TRUE:
        return Py_NewRef(Py_True);
    case CODE_INT:
        return number_object(&message->module->ints, unpack_signed(&message->in));
    case CODE_LIST:
        return PyList_New(0);
    case CODE_DICT:
        return PyDict_New();
    case CODE_SET:
        return PySet_New(NULL);
    case CODE_TUPLE:
        return PyTuple_New(0);
    case CODE_TEXT:
        return plain_get_text(message, unpack_length(&message->in));
    case CODE_INTS:
        return get_int_list(message);
    case CODE_COLD:
        return get_next_cold(message);
    case CODE_FLOAT:
        return get_float(message);
    case CODE_INT_SET:
        return get_int_set(message);
    }
    return message_bad(message);
}
