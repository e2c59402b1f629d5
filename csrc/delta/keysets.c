#include "delta/keysets.h"

#include "delta/plain.h"

static enum fit put_key_set(struct message *message, PyObject *value, struct slots *known) {
    if (!PySet_CheckExact(value) || PySet_GET_SIZE(value) == 0)
        return UNFIT;
    PyObject *iterator = PyObject_GetIter(value), *key;
    enum fit fit = iterator ? FITS : FAILED;
    pack_varint(&message->out, (uint64_t)PySet_GET_SIZE(value));
    while (fit == FITS && (key = PyIter_Next(iterator))) {
        const char *text = NULL;
        Py_ssize_t length;
        int64_t slot = PyUnicode_CheckExact(key) ? rows_find(message->rows, key) : -3;
        if (slot == -2 || (slot >= 0 && !rows_resize_slots(known, known->n + 1))) {
            fit = FAILED;
        } else if (slot >= 0) {
            pack_varint(&message->out, (uint64_t)slot + 1);
            known->at[known->n - 1] = (uint32_t)slot;
        } else if (slot == -1 && (text = plain_text_of(key, &length))) {
            pack_byte(&message->out, 0);
            pack_varint(&message->out, (uint64_t)length);
            pack_bytes(&message->out, text, (size_t)length);
        } else {
            fit = UNFIT;
        }
        Py_DECREF(key);
    }
    Py_XDECREF(iterator);
    return PyErr_Occurred() ? FAILED : fit;
}

static enum fit put_keyset(struct message *message, PyObject *value) {
    struct slots known = {0};
    enum fit fit = put_key_set(message, value, &known);
    slots_free(&known);
    return fit;
}

static enum fit put_finished(struct message *message, PyObject *value) {
    struct slots known = {0};
    enum fit fit = put_key_set(message, value, &known);
    for (size_t i = 0; fit == FITS && i < known.n; i++)
        if (!rows_end(message->rows, known.at[i]))
            fit = FAILED;
    slots_free(&known);
    return fit;
}

static PyObject *get_key_set(struct message *message, struct slots *known) {
    size_t n = unpack_length(&message->in);
    PyObject *set = PySet_New(NULL);
    for (; set && n > 0; n--) {
        uint64_t reference = unpack_varint(&message->in);
        PyObject *key = NULL;
        if (reference == 0) {
            key = plain_get_text(message, unpack_length(&message->in));
        } else if (reference <= message->rows->n_slots && message->rows->keys[reference - 1] &&
                   slots_resize(known, known->n + 1)) {
            known->at[known->n - 1] = (uint32_t)(reference - 1);
            key = Py_NewRef(message->rows->keys[reference - 1]);
        }
        if (!key || PySet_Add(set, key) != 0) {
            message->in.bad = true;
            Py_CLEAR(set);
        }
        Py_XDECREF(key);
    }
    return set;
}

static PyObject *get_keyset(struct message *message) {
    struct slots known = {0};
    PyObject *set = get_key_set(message, &known);
    slots_free(&known);
    return set;
}

static PyObject *get_finished(struct message *message) {
    struct slots known = {0};
    PyObject *set = get_key_set(message, &known);
    for (size_t i = 0; set && i < known.n; i++)
        if (!rows_end(message->rows, known.at[i]))
            Py_CLEAR(set);
    slots_free(&known);
    return set;
}

const struct codec keysets_codec = {put_keyset, get_keyset};
const struct codec keysets_codec_finished = {put_finished, get_finished};
