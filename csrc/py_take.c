/* What recv() returns: a message that has come, as a tuple, and its payload as what it is. */
#include "module.h"

/* The value that the record is, now free; NULL when it isn't one after all, or with MemoryError. */
static PyObject *take_packed(struct inbox_object *self, Py_ssize_t i) {
    const struct record *record = &self->messages[i].record;
    PyObject *value = unpack_from(record->payload, record->header.length);
    if (!value && PyErr_ExceptionMatches(PyExc_ValueError))
        PyErr_Clear(); /* the receiver finds the same, and says whose message it was */
    if (value == Py_NotImplemented)
        Py_CLEAR(value);
    if (value)
        ring_release(&self->readers[i], record);
    return value;
}

/* `kind` keeps KIND_PACKED only when the payload is the value. */
static PyObject *take_payload(struct inbox_object *self, Py_ssize_t i, uint16_t *kind,
                              uint64_t *tag, uint64_t *bytes) {
    struct incoming *message = &self->messages[i];
    if (message_take(message)) {
        PyObject *payload = self->buffers[i];
        self->buffers[i] = NULL;
        *kind = message->kind & ~KIND_PACKED;
        *tag = message->tag;
        *bytes = message->total;
        return payload;
    }
    *kind = message->record.header.kind;
    *tag = message->record.header.tag;
    *bytes = message->record.header.length;
    if (*kind & KIND_PACKED) {
        PyObject *value = take_packed(self, i);
        if (value || PyErr_Occurred())
            return value;
        *kind &= ~KIND_PACKED;
    }
    if (*bytes <= SMALL_BYTES) {
        PyObject *payload =
            PyBytes_FromStringAndSize((const char *)message->record.payload, (Py_ssize_t)*bytes);
        if (payload)
            ring_release(&self->readers[i], &message->record);
        return payload;
    }
    self->current = i;
    PyObject *view = PyMemoryView_FromObject((PyObject *)self);
    if (!view)
        self->current = -1;
    return view;
}

PyObject *inbox_take(struct inbox_object *self, Py_ssize_t i) {
    uint16_t kind;
    uint64_t tag, bytes;
    PyObject *payload = take_payload(self, i, &kind, &tag, &bytes);
    if (!payload)
        return NULL;
    if (self->line) {
        status_add(&self->line->bytes_in, bytes);
        status_add(&self->line->requests, 1);
    }
    self->next = i + 1 < self->n_rings ? i + 1 : 0;
    PyObject *ring = PyLong_FromSsize_t(i), *number = PyLong_FromUnsignedLong(kind);
    PyObject *step = PyLong_FromUnsignedLongLong(tag), *result = PyTuple_New(4);
    if (!ring || !number || !step || !result) {
        Py_XDECREF(ring);
        Py_XDECREF(number);
        Py_XDECREF(step);
        Py_XDECREF(result);
        Py_DECREF(payload);
        self->current = -1; /* what is read in place can be read again */
        return NULL;
    }
    PyTuple_SET_ITEM(result, 0, ring);
    PyTuple_SET_ITEM(result, 1, number);
    PyTuple_SET_ITEM(result, 2, step);
    PyTuple_SET_ITEM(result, 3, payload);
    return result;
}
