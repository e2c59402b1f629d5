/* One message of the delta codec: its head, its check, and the part that goes as a pickle. */
#include "delta.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { COLD_ALIGN = 16 }; /* as codec/objects.py wants it */

enum fit out_of_memory(void) {
    PyErr_NoMemory();
    return FAILED;
}

enum fit was_changed(void) {
    PyErr_SetString(PyExc_RuntimeError, "a list or dict was changed while it was being encoded");
    return FAILED;
}

bool raise_desync(struct module_state *module, const char *format, ...) {
    va_list values;
    va_start(values, format);
    PyErr_FormatV(module->codec_desync, format, values);
    va_end(values);
    return false;
}

bool raise_unreadable(struct module_state *module, const char *format, ...) {
    if (PyErr_Occurred() &&
        (PyErr_ExceptionMatches(PyExc_MemoryError) || !PyErr_ExceptionMatches(PyExc_Exception)))
        return false;
    PyErr_Clear();
    va_list values;
    va_start(values, format);
    PyErr_FormatV(module->codec_desync, format, values);
    va_end(values);
    return false;
}

void step_free(struct step *step) {
    free(step->out.bytes);
    free(step->actual.at);
    free(step->predicted.at);
    slots_free(&step->keys);
    slots_free(&step->counted);
    Py_CLEAR(step->cold);
}

int counts_place(const struct step *step) {
    return step->keys.n > 0 ? step->keys_place : 0;
}

const struct slots *counts_base(const struct step *step) {
    return step->keys.n > 0 ? &step->keys : &step->rows->orders[0]->slots;
}

void last_counts(const struct step *step, int64_t *values) {
    for (size_t i = 0; i < step->counted.n; i++)
        values[i] = step->rows->columns[COLUMN_COUNT][step->counted.at[i]];
}

void predict(const struct step *step, int64_t *values, enum column column,
             enum column step_column) {
    const int64_t *last = step->rows->columns[column];
    const int64_t *steps = step->rows->columns[step_column];
    for (size_t i = 0; i < step->keys.n; i++)
        values[i] = next_value(last, steps, step->keys.at[i]);
}

void take_changes(struct step *step, enum column column) {
    int64_t *last = step->rows->columns[column];
    int64_t *steps = step->rows->columns[COLUMN_TREND_STEP];
    uint64_t digest = 0;
    for (size_t i = 0; i < step->keys.n; i++) {
        uint32_t slot = step->keys.at[i];
        int64_t value = step->actual.at[i];
        if (column == COLUMN_TREND)
            steps[slot] = (int64_t)((uint64_t)value - (uint64_t)last[slot]);
        last[slot] = value;
        digest += digest_cell(slot, value);
    }
    step->digest += digest_column(column, digest);
}

static void take_counts(struct step *step, struct order *order) {
    struct rows *rows = step->rows;
    uint64_t total = 0, digest = 0;
    for (size_t i = 0; i < step->counted.n; i++) {
        uint32_t slot = step->counted.at[i];
        int64_t count = step->actual.at[i];
        rows->columns[COLUMN_COUNT][slot] = count;
        total += (uint64_t)count;
        digest += digest_cell(slot, count);
    }
    Py_CLEAR(order->counts);
    Py_CLEAR(order->given_counts.object);
    order->total = (int64_t)total;
    order->digest = digest;
    order->epoch = rows->epoch;
}

struct order *finish_counts(struct step *step, bool same, bool changed) {
    struct order *order = rows_remember(step->rows, &step->counted, same ? counts_place(step) : -1);
    if (!order)
        return NULL;
    step->rows->epoch += changed;
    if (order->epoch != step->rows->epoch)
        take_counts(step, order);
    step->has_counts = true;
    step->total = order->total;
    step->digest += digest_column(COLUMN_COUNT, order->digest);
    return order;
}

PyObject *int_list(struct module_state *module, const int64_t *values, size_t n) {
    PyObject *list = PyList_New((Py_ssize_t)n);
    for (size_t i = 0; list && i < n; i++) {
        PyObject *value = int_object(module, values[i]);
        if (!value) {
            Py_CLEAR(list);
            return NULL;
        }
        PyList_SET_ITEM(list, (Py_ssize_t)i, value);
    }
    return list;
}

void put_head(struct step *step) {
    static const uint8_t room[HEAD_BYTES];
    pack_bytes(&step->out, room, HEAD_BYTES);
}

static bool add_part(struct digest *digest, PyObject *part) {
    Py_buffer view;
    if (PyObject_GetBuffer(part, &view, PyBUF_SIMPLE) != 0)
        return false;
    digest_add(digest, view.buf, (size_t)view.len);
    PyBuffer_Release(&view);
    return true;
}

static bool add_parts(struct digest *digest, PyObject *cold) {
    if (!PyList_Check(cold))
        return add_part(digest, cold);
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(cold); i++)
        if (!add_part(digest, PyList_GET_ITEM(cold, i)))
            return false;
    return true;
}

/* The first part and the cold ones as a message: bytes, or a list if there are buffers. */
static PyObject *join(struct packer *out, PyObject *cold) {
    if (cold && PyBytes_Check(cold)) {
        pack_bytes(out, PyBytes_AS_STRING(cold), (size_t)PyBytes_GET_SIZE(cold));
        cold = NULL;
    }
    if (out->failed)
        return PyErr_NoMemory();
    PyObject *first = PyBytes_FromStringAndSize((const char *)out->bytes, (Py_ssize_t)out->length);
    if (!first || !cold)
        return first;
    PyObject *parts = PyList_GetSlice(cold, 0, PyList_GET_SIZE(cold));
    if (parts && PyList_Insert(parts, 0, first) != 0)
        Py_CLEAR(parts);
    Py_DECREF(first);
    return parts;
}

PyObject *put_end(struct step *step, uint32_t sequence, uint8_t flags, PyObject *dumps,
                  uint64_t seed, uint64_t *check) {
    struct packer *out = &step->out;
    PyObject *cold = NULL, *message = NULL;
    size_t hot_end = out->length;
    if (step->cold) {
        cold = PyObject_CallFunctionObjArgs(dumps, step->cold, NULL);
        if (!cold)
            return NULL;
        flags |= PyList_Check(cold) ? MESSAGE_COLD | MESSAGE_BUFFERS : MESSAGE_COLD;
        while (out->length % COLD_ALIGN && !out->failed)
            pack_byte(out, 0);
    }
    if (out->failed || out->length > UINT32_MAX) {
        Py_XDECREF(cold);
        return PyErr_NoMemory();
    }
    uint32_t end = (uint32_t)hot_end;
    memcpy(out->bytes + 8, &end, sizeof end);
    memcpy(out->bytes + 12, &sequence, sizeof sequence);
    out->bytes[16] = flags;
    struct digest digest = digest_begin(seed);
    digest_add(&digest, out->bytes + HEAD_CHECKED, out->length - HEAD_CHECKED);
    if (!cold || add_parts(&digest, cold)) {
        *check = digest_end(&digest);
        memcpy(out->bytes, check, sizeof *check);
        message = join(out, cold);
    }
    Py_XDECREF(cold);
    return message;
}

bool get_head(struct step *step, const Py_buffer *message, struct head *head) {
    const uint8_t *bytes = message->buf;
    size_t length = (size_t)message->len;
    if (length < HEAD_BYTES)
        return raise_desync(step->module, "a message of %zd bytes has no head", message->len);
    memcpy(&head->check, bytes, sizeof head->check);
    memcpy(&head->hot_end, bytes + 8, sizeof head->hot_end);
    memcpy(&head->sequence, bytes + 12, sizeof head->sequence);
    head->flags = bytes[16];
    if (head->hot_end < HEAD_BYTES || head->hot_end > length)
        return raise_desync(step->module, "a message of %zd bytes says that it has %u",
                            message->len, (unsigned)head->hot_end);
    step->in = (struct unpacker){.at = bytes + HEAD_BYTES, .end = bytes + head->hot_end};
    return true;
}

uint64_t check_of(const Py_buffer *message, uint64_t seed) {
    struct digest digest = digest_begin(seed);
    digest_add(&digest, (const uint8_t *)message->buf + HEAD_CHECKED,
               (size_t)message->len - HEAD_CHECKED);
    return digest_end(&digest);
}

bool get_cold(struct step *step, PyObject *payload, const struct head *head, PyObject *loads) {
    if (!(head->flags & MESSAGE_COLD))
        return true;
    long start = (long)((head->hot_end + COLD_ALIGN - 1) / COLD_ALIGN * COLD_ALIGN);
    PyObject *buffers = head->flags & MESSAGE_BUFFERS ? Py_True : Py_False;
    PyObject *at = PyLong_FromLong(start);
    if (at)
        step->cold = PyObject_CallFunctionObjArgs(loads, payload, buffers, at, NULL);
    Py_XDECREF(at);
    if (step->cold && !PyList_Check(step->cold)) {
        Py_CLEAR(step->cold);
        raise_desync(step->module, "the cold part isn't a list");
    }
    return step->cold != NULL;
}
