/* Sets of keys; those of finished requests end their rows. */
#include "delta/fields.h"
#include "delta/plain.h"

static enum fit put_key(struct message *message, PyObject *key, struct slots *known) {
    Py_ssize_t length;
    int64_t slot = PyUnicode_CheckExact(key) ? rows_find(message->rows, key) : -3;
    if (slot >= 0) {
        if (!rows_resize_slots(known, known->n + 1))
            return FAILED;
        known->at[known->n - 1] = (uint32_t)slot;
        pack_varint(&message->out, (uint64_t)slot + 1);
        return FITS;
    }
    const char *text = slot == -1 ? plain_text_of(key, &length) : NULL;
    if (!text)
        return slot == -2 ? FAILED : UNFIT;
    pack_byte(&message->out, 0);
    pack_sized(&message->out, text, (size_t)length);
    return FITS;
}

static bool end_rows(struct rows *rows, const struct slots *known) {
    for (size_t i = 0; i < known->n; i++)
        if (!rows_end(rows, known->at[i]))
            return false;
    return true;
}

enum fit keysets_put(struct message *message, PyObject *value, enum field_kind kind) {
    struct slots *known = &message->scratch.slots;
    if (!PySet_CheckExact(value) || PySet_GET_SIZE(value) == 0)
        return UNFIT;
    PyObject *iterator = PyObject_GetIter(value), *key;
    enum fit fit = iterator ? FITS : FAILED;
    known->n = 0;
    pack_varint(&message->out, (uint64_t)PySet_GET_SIZE(value));
    while (fit == FITS && (key = PyIter_Next(iterator))) {
        fit = put_key(message, key, known);
        Py_DECREF(key);
    }
    Py_XDECREF(iterator);
    if (PyErr_Occurred() ||
        (fit == FITS && kind == FIELD_FINISHED && !end_rows(message->rows, known)))
        return FAILED;
    return fit;
}

static PyObject *get_key(struct message *message, struct slots *known) {
    uint64_t reference = unpack_varint(&message->in);
    if (reference == 0)
        return plain_get_text(message, unpack_length(&message->in));
    PyObject *key = rows_key(message->rows, reference - 1);
    if (!key || !slots_resize(known, known->n + 1))
        return NULL;
    known->at[known->n - 1] = (uint32_t)(reference - 1);
    return Py_NewRef(key);
}

PyObject *keysets_get(struct message *message, enum field_kind kind) {
    struct slots *known = &message->scratch.slots;
    size_t n = unpack_length(&message->in);
    PyObject *set = PySet_New(NULL);
    known->n = 0;
    for (; set && n > 0; n--) {
        PyObject *key = get_key(message, known);
        if (!key || PySet_Add(set, key) != 0) {
            message->in.bad = true;
            Py_CLEAR(set);
        }
        Py_XDECREF(key);
    }
    if (set && kind == FIELD_FINISHED && !end_rows(message->rows, known))
        Py_CLEAR(set);
    return set;
}
