/* How a message that has come becomes the tuple that recv() returns. */
#include "python/inbox_object.h"
#include "python/module.h"
#include "python/raise.h"
#include "python/values.h"
#include "ring/clock.h"
#include "run/status.h"

/* `kind` keeps KIND_PACKED only if the payload is the unpacked value. `copied`: the record may be
 * released. */
static PyObject *take_payload(struct inbox_object *self, Py_ssize_t i, uint16_t *kind,
                              uint64_t *tag, uint64_t *bytes, bool *copied) {
    struct incoming *message = &self->sources[i].message;
    *copied = false;
    if (message_take(message)) {
        PyObject *payload = self->sources[i].block;
        self->sources[i].block = NULL;
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
        status_add(&self->line->counters[COUNT_BYTES_IN], bytes);
        status_add(&self->line->counters[COUNT_REQUESTS], 1);
    }
    if (!track_is_on(self->track))
        return;
    if (!self->line)
        track_taken(self->track, tag, bytes, monotonic_ns());
    else if (kind & KIND_PACKED)
        track_received_whole(self->track, tag, bytes);
    else
        track_received(self->track, tag, bytes, monotonic_ns());
}

static PyObject *take(struct inbox_object *self, Py_ssize_t i) {
    uint16_t kind;
    uint64_t tag, bytes;
    bool copied;
    PyObject *payload = take_payload(self, i, &kind, &tag, &bytes, &copied);
    if (!payload)
        return NULL;
    PyObject *result = PyTuple_New(4);
    PyObject *items[] = {PyLong_FromSsize_t(i), PyLong_FromUnsignedLong(kind),
                         PyLong_FromUnsignedLongLong(tag), payload};
    bool made = result && items[0] && items[1] && items[2];
    for (Py_ssize_t place = 0; place < 4; place++)
        if (made)
            PyTuple_SET_ITEM(result, place, items[place]);
        else
            Py_XDECREF(items[place]);
    if (!made) {
        Py_XDECREF(result);
        self->current = -1; /* a message in one record can be taken again */
        return NULL;
    }
    if (copied)
        ring_release(&self->listener.readers[i], &self->sources[i].message.record);
    note_received(self, kind, tag, bytes);
    self->next = i + 1 < self->listener.n ? i + 1 : 0;
    return result;
}

static PyObject *take_without_gc(struct inbox_object *self, Py_ssize_t i) {
    /* Up to CPython 3.11 making a tuple may start the garbage collector. A finalizer that it runs
     * may read this inbox, which is busy. */
    int collects = PyGC_Disable();
    PyObject *result = take(self, i);
    if (collects)
        PyGC_Enable();
    return result;
}

/* message_receive(), with a block for a message in fragments. `*failed`: the block has raised. */
static enum ring_result receive(struct inbox_object *self, Py_ssize_t i, bool *failed) {
    struct incoming *message = &self->sources[i].message;
    for (;;) {
        enum ring_result result;
        if (message->buffer) { /* fragments are copied, and they are large */
            Py_BEGIN_ALLOW_THREADS
            result = message_receive(&self->listener.readers[i], message);
            Py_END_ALLOW_THREADS
        } else {
            result = message_receive(&self->listener.readers[i], message);
        }
        if (result == RING_ABORTED) {
            message_take(message);
            Py_CLEAR(self->sources[i].block);
        } else if (result == RING_NEED_BUFFER) {
            char *memory;
            self->sources[i].block =
                block_new(module_state_of((PyObject *)self)->block_type, message->total, &memory);
            if (!self->sources[i].block) {
                *failed = true;
                return result;
            }
            message->buffer = (unsigned char *)memory;
        } else {
            return result;
        }
    }
}

static PyObject *raise_corrupt(struct inbox_object *self, Py_ssize_t i) {
    const struct ring_reader *reader = &self->listener.readers[i];
    const struct record_header *header = &self->sources[i].message.record.header;
    return PyErr_Format(
        module_state_of((PyObject *)self)->channel_corrupt,
        "record at %llu of ring %zd: length %u, kind %u, flags %u, tail %llu, capacity %llu: no "
        "writer writes this; something else wrote into the segment",
        (unsigned long long)reader->head, i, header->length, header->kind, header->flags,
        (unsigned long long)reader->tail, (unsigned long long)reader->ring->capacity);
}

PyObject *received_poll(struct inbox_object *self) {
    Py_ssize_t poisoned = -1, dead = -1, open = 0;
    for (Py_ssize_t k = 0; k < self->listener.n; k++) {
        Py_ssize_t i =
            self->next + k < self->listener.n ? self->next + k : self->next + k - self->listener.n;
        if (self->sources[i].ended)
            continue;
        open++;
        bool failed = false;
        enum ring_result result = receive(self, i, &failed);
        if (failed)
            return NULL;
        if (result == RING_OK)
            return take_without_gc(self, i);
        if (result == RING_CORRUPT)
            return raise_corrupt(self, i);
        if (result == RING_POISONED)
            poisoned = i;
        if (result == RING_DEAD)
            dead = i;
        if (result == RING_CLOSED) {
            self->sources[i].ended = true;
            open--;
        }
    }
    /* Only now, when all that could be read has been read. */
    if (poisoned >= 0)
        return raise_result((PyObject *)self, self->listener.readers[poisoned].ring, RING_POISONED);
    if (dead >= 0)
        return raise_result((PyObject *)self, self->listener.readers[dead].ring, RING_DEAD);
    if (open == 0)
        return raise_result((PyObject *)self, self->listener.readers[0].ring, RING_CLOSED);
    return NULL;
}
