#include "python/received.h"

#include "python/module.h"
#include "python/values.h"
#include "ring/clock.h"
#include "run/status.h"

/* `kind` keeps KIND_PACKED only if the payload is the unpacked value. `copied`: the record may be
 * released. */
static PyObject *take_payload(struct inbox_object *self, Py_ssize_t i, uint16_t *kind,
                              uint64_t *tag, uint64_t *bytes, bool *copied) {
    struct incoming *message = &self->messages[i];
    *copied = false;
    if (message_take(message)) {
        PyObject *payload = self->buffers[i];
        self->buffers[i] = NULL;
        *kind = message->kind & ~KIND_PACKED;
        *tag = message->tag;
        *bytes = message->total;
        return payload;
    }
    const struct record *record = &message->record;
    *kind = record->header.kind;
    *tag = record->header.tag;
    *bytes = record->header.length;
    if (*kind & KIND_PACKED) {
        PyObject *value = values_unpack(record->payload, *bytes);
        if (value && value != Py_NotImplemented) {
            *copied = true;
            return value;
        }
        /* It is damaged: the receiver gets the bytes, and reports the error with its sender. */
        Py_CLEAR(value);
        PyErr_Clear();
        *kind &= ~KIND_PACKED;
    }
    if (*bytes <= SMALL_BYTES) {
        *copied = true;
        return PyBytes_FromStringAndSize((const char *)record->payload, (Py_ssize_t)*bytes);
    }
    self->current = i;
    PyObject *view = PyMemoryView_FromObject((PyObject *)self);
    if (!view)
        self->current = -1;
    return view;
}

/* Counts and records a message that has been taken out of its ring. */
static void note_received(struct inbox_object *self, uint16_t kind, uint64_t tag, uint64_t bytes) {
    if (self->line) {
        status_add(&self->line->bytes_in, bytes);
        status_add(&self->line->requests, 1);
        if (self->track && kind & KIND_PACKED)
            track_received_whole(self->track, tag, bytes);
        else if (self->track)
            track_received(self->track, tag, bytes, monotonic_ns());
    } else if (self->track) {
        track_taken(self->track, tag, bytes, monotonic_ns());
    }
}

static PyObject *take(struct inbox_object *self, Py_ssize_t i) {
    uint16_t kind;
    uint64_t tag, bytes;
    bool copied;
    PyObject *payload = take_payload(self, i, &kind, &tag, &bytes, &copied);
    if (!payload)
        return NULL;
    PyObject *ring = PyLong_FromSsize_t(i), *number = PyLong_FromUnsignedLong(kind);
    PyObject *step = PyLong_FromUnsignedLongLong(tag), *result = PyTuple_New(4);
    if (!ring || !number || !step || !result) {
        Py_XDECREF(ring);
        Py_XDECREF(number);
        Py_XDECREF(step);
        Py_XDECREF(result);
        Py_DECREF(payload);
        self->current = -1; /* a message in one record can be taken again */
        return NULL;
    }
    PyTuple_SET_ITEM(result, 0, ring);
    PyTuple_SET_ITEM(result, 1, number);
    PyTuple_SET_ITEM(result, 2, step);
    PyTuple_SET_ITEM(result, 3, payload);
    if (copied)
        ring_release(&self->readers[i], &self->messages[i].record);
    note_received(self, kind, tag, bytes);
    self->next = i + 1 < self->n_rings ? i + 1 : 0;
    return result;
}

PyObject *received_take(struct inbox_object *self, Py_ssize_t i) {
    /* Up to CPython 3.11 making a tuple may start the garbage collector. A finalizer that it runs
     * may read this inbox, which is busy. */
    int collects = PyGC_Disable();
    PyObject *result = take(self, i);
    if (collects)
        PyGC_Enable();
    return result;
}
