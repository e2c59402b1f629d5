/* How a message in a ring becomes an object. */
#include "python/inbox_object.h"
#include "python/module.h"
#include "python/raise.h"
#include "python/values.h"
#include "ring/clock.h"
#include "run/status.h"

/* The payload of the message in sources[i], and what else `received` says of it. False with an
 * exception set: then a message in one record can be taken again. */
static bool take(struct inbox_object *self, Py_ssize_t i, struct received *received) {
    struct incoming *message = &self->sources[i].message;
    const struct record *record = &message->record;
    *received = (struct received){.source = i};
    if (message_take(message)) {
        received->payload = self->sources[i].block;
        self->sources[i].block = NULL;
        received->kind = message->kind & ~KIND_PACKED;
        received->tag = message->tag;
        received->bytes = message->total;
        return true;
    }
    received->kind = record->header.kind;
    received->tag = record->header.tag;
    received->bytes = record->header.length;
    received->copied = true;
    if (received->kind & KIND_PACKED) {
        PyObject *value = values_unpack(record->payload, received->bytes);
        if (value && value != Py_NotImplemented) {
            received->payload = value;
            return true;
        }
        /* It is damaged: the receiver gets the bytes, and reports the error with its sender. */
        Py_CLEAR(value);
        PyErr_Clear();
        received->kind &= ~KIND_PACKED;
    }
    if (received->bytes <= SMALL_BYTES) {
        received->payload =
            PyBytes_FromStringAndSize((const char *)record->payload, (Py_ssize_t)received->bytes);
        return received->payload != NULL;
    }
    received->copied = false;
    self->current = i;
    received->payload = PyMemoryView_FromObject((PyObject *)self);
    if (!received->payload)
        self->current = -1;
    return received->payload != NULL;
}

/* Counts and records a message. */
static void note_received(struct inbox_object *self, const struct received *message) {
    if (self->line) {
        status_add(&self->line->counters[COUNT_BYTES_IN], message->bytes);
        status_add(&self->line->counters[COUNT_REQUESTS], 1);
    }
    if (!track_is_on(self->track))
        return;
    if (!self->line)
        track_taken(self->track, message->tag, message->bytes, monotonic_ns());
    else if (message->kind & KIND_PACKED)
        track_received_whole(self->track, message->tag, message->bytes);
    else
        track_received(self->track, message->tag, message->bytes, monotonic_ns());
}

void received_accept(struct inbox_object *self, const struct received *message) {
    Py_ssize_t i = message->source;
    if (message->copied)
        ring_release(&self->listener.readers[i], &self->sources[i].message.record);
    note_received(self, message);
    self->next = i + 1 < self->listener.n ? i + 1 : 0;
}

/* Up to CPython 3.11 making a tuple may start the garbage collector. A finalizer that it runs may
 * read this inbox, which is busy. */
static bool take_without_gc(struct inbox_object *self, Py_ssize_t i, struct received *message) {
    int collects = PyGC_Disable();
    bool taken = take(self, i, message);
    if (collects)
        PyGC_Enable();
    return taken;
}

PyObject *received_tuple(const struct received *message) {
    int collects = PyGC_Disable(); /* as above */
    PyObject *tuple = PyTuple_New(4);
    if (collects)
        PyGC_Enable();
    /* Py_BuildValue() would take longer. */
    PyObject *items[] = {PyLong_FromSsize_t(message->source),
                         PyLong_FromUnsignedLong(message->kind),
                         PyLong_FromUnsignedLongLong(message->tag), Py_NewRef(message->payload)};
    bool made = tuple && items[0] && items[1] && items[2];
    for (Py_ssize_t i = 0; i < 4; i++)
        if (made)
            PyTuple_SET_ITEM(tuple, i, items[i]);
        else
            Py_XDECREF(items[i]);
    if (!made)
        Py_CLEAR(tuple);
    return tuple;
}

bool received_parse(PyObject *tuple, struct received *message) {
    unsigned long long tag;
    *message = (struct received){0};
    if (!PyTuple_Check(tuple) || !PyArg_ParseTuple(tuple, "nHKO", &message->source, &message->kind,
                                                   &tag, &message->payload)) {
        PyErr_SetString(PyExc_TypeError, "receive() must return what Inbox.recv() does");
        return false;
    }
    message->tag = tag;
    Py_INCREF(message->payload);
    return true;
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

static int raise_corrupt(struct inbox_object *self, Py_ssize_t i) {
    const struct ring_reader *reader = &self->listener.readers[i];
    const struct record_header *header = &self->sources[i].message.record.header;
    PyErr_Format(
        module_state_of((PyObject *)self)->channel_corrupt,
        "record at %llu of ring %zd: length %u, kind %u, flags %u, tail %llu, capacity %llu: no "
        "writer writes this; something else wrote into the segment",
        (unsigned long long)reader->head, i, header->length, header->kind, header->flags,
        (unsigned long long)reader->tail, (unsigned long long)reader->ring->capacity);
    return -1;
}

int received_poll(struct inbox_object *self, struct received *message) {
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
            return -1;
        if (result == RING_OK)
            return take_without_gc(self, i, message) ? 1 : -1;
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
        raise_result((PyObject *)self, self->listener.readers[poisoned].ring, RING_POISONED);
    else if (dead >= 0)
        raise_result((PyObject *)self, self->listener.readers[dead].ring, RING_DEAD);
    else if (open == 0)
        raise_result((PyObject *)self, self->listener.readers[0].ring, RING_CLOSED);
    else
        return 0;
    return -1;
}
