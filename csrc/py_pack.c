/* Plain values as bytes: what a small message consists of, at a tenth of a pickle's cost.
 *
 * None, bool, int (64 bits), float, str, bytes, tuples of these, and an empty dict; exact types
 * only. Nothing that can be changed and shared, so that there is no identity to keep. The first
 * byte is none that a pickle begins with.
 *
 * Writer.send_packed() writes them into the ring, and recv() makes them anew from there: with no
 * bytes object and no call of Python's in between, a process that has just got its core needs half
 * the time for a message. */
#include "module.h"

#include <string.h>

enum {
    PACKED = 0x01,
    MAX_DEPTH = 16,
    MAX_ITEMS = UINT8_MAX,
    MAX_BYTES = 1 << 20, /* larger ones are worth the memory of a second copy less */
};

/* Bytes that a value takes after its tag; -1: not a plain one, and no exception is set. */
static Py_ssize_t size_of(PyObject *value, int depth) {
    if (value == Py_None || value == Py_True || value == Py_False)
        return 1;
    if (PyUnicode_CheckExact(value)) {
        Py_ssize_t n;
        if (!PyUnicode_AsUTF8AndSize(value, &n)) {
            PyErr_Clear(); /* a lone surrogate */
            return -1;
        }
        return n <= MAX_BYTES ? 5 + n : -1;
    }
    if (PyBytes_CheckExact(value)) {
        Py_ssize_t n = PyBytes_GET_SIZE(value);
        return n <= MAX_BYTES ? 5 + n : -1;
    }
    if (PyLong_CheckExact(value)) {
        int overflow;
        (void)PyLong_AsLongLongAndOverflow(value, &overflow);
        return overflow ? -1 : 9;
    }
    if (PyFloat_CheckExact(value))
        return 9;
    if (PyDict_CheckExact(value))
        return PyDict_GET_SIZE(value) == 0 ? 1 : -1;
    if (!PyTuple_CheckExact(value) || depth == MAX_DEPTH)
        return -1;
    Py_ssize_t n = PyTuple_GET_SIZE(value), total = 2;
    if (n > MAX_ITEMS)
        return -1;
    for (Py_ssize_t i = 0; i < n; i++) {
        Py_ssize_t item = size_of(PyTuple_GET_ITEM(value, i), depth + 1);
        /* What is in there many times is counted, and would be sent, each time. */
        if (item < 0 || (total += item) > MAX_BYTES)
            return -1;
    }
    return total;
}

static char *put_word(char *at, char tag, const void *word) {
    *at = tag;
    memcpy(at + 1, word, 8);
    return at + 9;
}

static char *put_text(char *at, char tag, const char *text, Py_ssize_t n) {
    uint32_t length = (uint32_t)n;
    *at = tag;
    memcpy(at + 1, &length, 4);
    memcpy(at + 5, text, (size_t)n);
    return at + 5 + n;
}

/* Only what size_of() has measured: then it can't fail. */
static char *put(char *at, PyObject *value) {
    if (value == Py_None || value == Py_True || value == Py_False) {
        *at = value == Py_None ? 'n' : value == Py_True ? 't' : 'f';
        return at + 1;
    }
    if (PyUnicode_CheckExact(value)) {
        Py_ssize_t n;
        const char *text = PyUnicode_AsUTF8AndSize(value, &n);
        return put_text(at, 's', text, n);
    }
    if (PyBytes_CheckExact(value))
        return put_text(at, 'b', PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value));
    if (PyLong_CheckExact(value)) {
        long long number = PyLong_AsLongLong(value);
        return put_word(at, 'i', &number);
    }
    if (PyFloat_CheckExact(value)) {
        double number = PyFloat_AsDouble(value);
        return put_word(at, 'd', &number);
    }
    if (PyDict_CheckExact(value)) {
        *at = '{';
        return at + 1;
    }
    Py_ssize_t n = PyTuple_GET_SIZE(value);
    at[0] = '(';
    at[1] = (char)(uint8_t)n;
    at += 2;
    for (Py_ssize_t i = 0; i < n; i++)
        at = put(at, PyTuple_GET_ITEM(value, i));
    return at;
}

Py_ssize_t packed_size(PyObject *value) {
    Py_ssize_t size = size_of(value, 0);
    return size < 0 ? -1 : 1 + size;
}

void pack_into(void *memory, PyObject *value) {
    char *at = memory;
    *at = PACKED;
    put(at + 1, value);
}

static PyObject *pack(PyObject *module, PyObject *value) {
    (void)module;
    Py_ssize_t size = packed_size(value);
    if (size < 0)
        Py_RETURN_NONE;
    PyObject *packed = PyBytes_FromStringAndSize(NULL, size);
    if (packed)
        pack_into(PyBytes_AS_STRING(packed), value);
    return packed;
}

struct bytes_left {
    const char *at, *end;
};

static PyObject *cut_short(void) {
    PyErr_SetString(PyExc_ValueError, "a packed value is cut short, or isn't one");
    return NULL;
}

static PyObject *take(struct bytes_left *left, int depth);

static PyObject *take_tuple(struct bytes_left *left, int depth) {
    if (left->at == left->end || depth == MAX_DEPTH)
        return cut_short();
    Py_ssize_t n = (uint8_t)*left->at++;
    PyObject *tuple = PyTuple_New(n);
    for (Py_ssize_t i = 0; tuple && i < n; i++) {
        PyObject *item = take(left, depth + 1);
        if (!item)
            Py_CLEAR(tuple);
        else
            PyTuple_SET_ITEM(tuple, i, item);
    }
    return tuple;
}

static PyObject *take_text(struct bytes_left *left, char tag) {
    uint32_t n;
    if (left->end - left->at < 4)
        return cut_short();
    memcpy(&n, left->at, 4);
    left->at += 4;
    if ((size_t)(left->end - left->at) < n)
        return cut_short();
    const char *text = left->at;
    left->at += n;
    return tag == 's' ? PyUnicode_FromStringAndSize(text, (Py_ssize_t)n)
                      : PyBytes_FromStringAndSize(text, (Py_ssize_t)n);
}

static PyObject *take_number(struct bytes_left *left, char tag) {
    long long integer;
    double real;
    if (left->end - left->at < 8)
        return cut_short();
    memcpy(&integer, left->at, 8);
    memcpy(&real, left->at, 8);
    left->at += 8;
    return tag == 'i' ? PyLong_FromLongLong(integer) : PyFloat_FromDouble(real);
}

static PyObject *take(struct bytes_left *left, int depth) {
    if (left->at == left->end)
        return cut_short();
    char tag = *left->at++;
    switch (tag) {
    case 'n':
        Py_RETURN_NONE;
    case 't':
        Py_RETURN_TRUE;
    case 'f':
        Py_RETURN_FALSE;
    case '{':
        return PyDict_New();
    case '(':
        return take_tuple(left, depth);
    case 's':
    case 'b':
        return take_text(left, tag);
    case 'i':
    case 'd':
        return take_number(left, tag);
    default:
        return cut_short();
    }
}

PyObject *unpack_from(const void *bytes, size_t length) {
    struct bytes_left left = {bytes, (const char *)bytes + length};
    if (left.at == left.end || *left.at++ != PACKED)
        return Py_NewRef(Py_NotImplemented);
    PyObject *value = take(&left, 0);
    if (value && left.at != left.end) {
        Py_DECREF(value);
        return cut_short();
    }
    return value;
}

static PyObject *unpack(PyObject *module, PyObject *message) {
    (void)module;
    Py_buffer view;
    if (PyObject_GetBuffer(message, &view, PyBUF_SIMPLE) != 0)
        return NULL;
    PyObject *value = unpack_from(view.buf, (size_t)view.len);
    PyBuffer_Release(&view);
    return value;
}

PyMethodDef pack_methods[] = {
    {"pack", pack, METH_O, NULL},
    {"unpack", unpack, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};
