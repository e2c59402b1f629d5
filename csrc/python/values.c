/* Plain values as bytes, for small messages, at a tenth of a pickle's cost.
 *
 * None, bool, int (64 bits), float, str, bytes, and tuples, lists and dicts of these; exact types
 * only. A value with the same list or dict twice is left to pickle, which keeps its identity. No
 * pickle begins with the same first byte.
 *
 * Writer.send_packed() writes them into the ring, and recv() reads them there. There is no bytes
 * object and no Python call in between, so a process with cold caches needs half the time. */
#include "python/values.h"

#include <string.h>

#include "python/module.h"

enum {
    PACKED = 0x01,
    MAX_DEPTH = 16,
    MAX_ITEMS = UINT8_MAX,
    MAX_SEEN = 32,      /* lists and dicts in one value */
    MAX_TEXT = 1 << 20, /* for a larger one pickle saves a copy */
    MAX_PACKED = 1 + 5 + MAX_TEXT,
};

/* Measures a value that may be plain. No Python code runs meanwhile, so the value doesn't change
 * before put(). */
struct walk {
    int depth, n_seen;
    Py_ssize_t size;          /* bytes so far; an object that occurs twice counts twice */
    PyObject *seen[MAX_SEEN]; /* the lists and dicts so far */
};

static bool add_size(struct walk *walk, Py_ssize_t bytes) {
    walk->size += bytes;
    return walk->size <= MAX_PACKED;
}

static bool is_new(struct walk *walk, PyObject *value) {
    for (int i = 0; i < walk->n_seen; i++)
        if (walk->seen[i] == value)
            return false;
    if (walk->n_seen == MAX_SEEN)
        return false;
    walk->seen[walk->n_seen++] = value;
    return true;
}

/* For surrogates CPython calls an error handler, which may be Python code. */
static bool has_utf8(PyObject *text) {
    Py_ssize_t n = PyUnicode_GET_LENGTH(text);
    int kind = PyUnicode_KIND(text);
    if (n > MAX_TEXT)
        return false;
    if (kind == PyUnicode_1BYTE_KIND)
        return true;
    if (kind != PyUnicode_2BYTE_KIND && kind != PyUnicode_4BYTE_KIND)
        return false; /* before CPython 3.12: not ready */
    const void *characters = PyUnicode_DATA(text);
    for (Py_ssize_t i = 0; i < n; i++)
        if (Py_UNICODE_IS_SURROGATE(PyUnicode_READ(kind, characters, i)))
            return false;
    return true;
}

static bool measure(struct walk *walk, PyObject *value);

static bool measure_items(struct walk *walk, PyObject *value) {
    bool dict = PyDict_CheckExact(value);
    Py_ssize_t n = dict ? PyDict_GET_SIZE(value) : PySequence_Fast_GET_SIZE(value), at = 0;
    if (n > MAX_ITEMS)
        return false;
    if (dict) {
        PyObject *key, *item;
        while (PyDict_Next(value, &at, &key, &item))
            if (!measure(walk, key) || !measure(walk, item))
                return false;
        return true;
    }
    while (at < n && measure(walk, PySequence_Fast_GET_ITEM(value, at)))
        at++;
    return at == n;
}

static bool measure_container(struct walk *walk, PyObject *value) {
    bool tuple = PyTuple_CheckExact(value);
    if (!tuple && !PyDict_CheckExact(value) && !PyList_CheckExact(value))
        return false;
    if (walk->depth == MAX_DEPTH || (!tuple && !is_new(walk, value)))
        return false;
    walk->depth++;
    bool plain = add_size(walk, 2) && measure_items(walk, value);
    walk->depth--;
    return plain;
}

/* Adds the bytes that a value takes; false, and no exception set, when it isn't a plain one. */
static bool measure(struct walk *walk, PyObject *value) {
    if (value == Py_None || value == Py_True || value == Py_False)
        return add_size(walk, 1);
    if (PyUnicode_CheckExact(value)) {
        Py_ssize_t n;
        if (!has_utf8(value))
            return false;
        if (PyUnicode_AsUTF8AndSize(value, &n))
            return add_size(walk, 5 + n);
        PyErr_Clear(); /* no memory */
        return false;
    }
    if (PyBytes_CheckExact(value))
        return PyBytes_GET_SIZE(value) <= MAX_TEXT && add_size(walk, 5 + PyBytes_GET_SIZE(value));
    if (PyLong_CheckExact(value)) {
        int overflow;
        (void)PyLong_AsLongLongAndOverflow(value, &overflow);
        return !overflow && add_size(walk, 9);
    }
    if (PyFloat_CheckExact(value))
        return add_size(walk, 9);
    return measure_container(walk, value);
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

static char *put(char *at, PyObject *value);

static char *put_container(char *at, PyObject *value) {
    if (PyDict_CheckExact(value)) {
        PyObject *key, *item;
        Py_ssize_t place = 0;
        at[0] = '{';
        at[1] = (char)(uint8_t)PyDict_GET_SIZE(value);
        at += 2;
        while (PyDict_Next(value, &place, &key, &item))
            at = put(put(at, key), item);
        return at;
    }
    Py_ssize_t n = PySequence_Fast_GET_SIZE(value);
    at[0] = PyTuple_CheckExact(value) ? '(' : '[';
    at[1] = (char)(uint8_t)n;
    at += 2;
    for (Py_ssize_t i = 0; i < n; i++)
        at = put(at, PySequence_Fast_GET_ITEM(value, i));
    return at;
}

/* Can't fail for a value that measure() has accepted. */
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
    return put_container(at, value);
}

Py_ssize_t values_size(PyObject *value) {
    struct walk walk;
    walk.depth = walk.n_seen = 0; /* `seen` isn't cleared: that would slow down small messages */
    walk.size = 1;
    return measure(&walk, value) ? walk.size : -1;
}

void values_pack(void *memory, PyObject *value) {
    char *at = memory;
    *at = PACKED;
    put(at + 1, value);
}

static PyObject *pack(PyObject *module, PyObject *value) {
    (void)module;
    Py_ssize_t size = values_size(value);
    if (size < 0)
        Py_RETURN_NONE;
    PyObject *packed = PyBytes_FromStringAndSize(NULL, size);
    if (packed)
        values_pack(PyBytes_AS_STRING(packed), value);
    return packed;
}

struct bytes_left {
    const char *at, *end;
    int n_seen; /* lists and dicts so far */
};

static PyObject *cut_short(void) {
    return PyErr_Format(PyExc_ValueError, "a packed value is cut short, or isn't one");
}

static PyObject *take(struct bytes_left *left, int depth);

static PyObject *take_items(struct bytes_left *left, int depth, Py_ssize_t n, bool tuple) {
    PyObject *items = tuple ? PyTuple_New(n) : PyList_New(n);
    for (Py_ssize_t i = 0; items && i < n; i++) {
        PyObject *item = take(left, depth);
        if (!item)
            Py_CLEAR(items);
        else if (tuple)
            PyTuple_SET_ITEM(items, i, item);
        else
            PyList_SET_ITEM(items, i, item);
    }
    return items;
}

static PyObject *take_dict(struct bytes_left *left, int depth, Py_ssize_t n) {
    PyObject *dict = PyDict_New();
    for (Py_ssize_t i = 0; dict && i < n; i++) {
        PyObject *key = take(left, depth), *value = key ? take(left, depth) : NULL;
        if (!value || PyDict_SetItem(dict, key, value) != 0) {
            if (value && PyErr_ExceptionMatches(PyExc_TypeError))
                cut_short(); /* a list as a key */
            Py_CLEAR(dict);
        }
        Py_XDECREF(key);
        Py_XDECREF(value);
    }
    if (dict && PyDict_GET_SIZE(dict) != n) { /* a key twice */
        Py_CLEAR(dict);
        cut_short();
    }
    return dict;
}

static PyObject *take_container(struct bytes_left *left, char tag, int depth) {
    if (left->at == left->end || depth == MAX_DEPTH)
        return cut_short();
    if (tag != '(' && left->n_seen++ == MAX_SEEN)
        return cut_short();
    Py_ssize_t n = (uint8_t)*left->at++;
    return tag == '{' ? take_dict(left, depth + 1, n) : take_items(left, depth + 1, n, tag == '(');
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
    case '(':
    case '[':
    case '{':
        return take_container(left, tag, depth);
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

PyObject *values_unpack(const void *bytes, size_t length) {
    struct bytes_left left = {.at = bytes, .end = (const char *)bytes + length};
    if (left.at == left.end || *left.at++ != PACKED)
        return Py_NewRef(Py_NotImplemented);
    if (length > MAX_PACKED)
        return cut_short();
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
    PyObject *value = values_unpack(view.buf, (size_t)view.len);
    PyBuffer_Release(&view);
    return value;
}

PyMethodDef values_methods[] = {
    {"pack", pack, METH_O, NULL},
    {"unpack", unpack, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};
