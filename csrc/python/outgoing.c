#include "python/outgoing.h"

#include <string.h>

#include "python/module.h"
#include "python/raise.h"
#include "python/values.h"
#include "run/status.h"

/* A message is in the ring: counts and records it. */
static void note_sent(struct writer_object *self, uint64_t tag, uint64_t bytes) {
    if (self->bytes_out)
        status_add(self->bytes_out, bytes);
    if (!track_is_on(self->track))
        return;
    if (self->bytes_out)
        track_replied(self->track, tag, bytes, self->writer.published_ns);
    else
        track_sent(self->track, tag, bytes, self->writer.published_ns);
}

void outgoing_let_go(struct writer_object *self) {
    for (Py_ssize_t i = 0; i < self->n_views; i++)
        PyBuffer_Release(&self->views[i]);
    if (self->views != self->inline_views) {
        PyMem_Free(self->views);
        PyMem_Free(self->parts);
    }
    self->views = NULL;
    self->parts = NULL;
    self->n_views = 0;
    self->pending = false;
}

static bool room_for(struct writer_object *self, Py_ssize_t n_parts) {
    self->views = self->inline_views;
    self->parts = self->inline_parts;
    if (n_parts <= INLINE_PARTS)
        return true;
    self->views = PyMem_Malloc((size_t)n_parts * sizeof *self->views);
    self->parts = PyMem_Malloc((size_t)n_parts * sizeof *self->parts);
    if (self->views && self->parts)
        return true;
    outgoing_let_go(self);
    PyErr_NoMemory();
    return false;
}

static bool hold_part(struct writer_object *self, PyObject *part) {
    Py_buffer *view = &self->views[self->n_views];
    if (PyObject_GetBuffer(part, view, PyBUF_SIMPLE) != 0)
        return false;
    self->parts[self->n_views++] =
        (struct iovec){.iov_base = view->buf, .iov_len = (size_t)view->len};
    return true;
}

bool outgoing_begin(struct writer_object *self, const struct sending *sending) {
    PyObject *what = sending->what;
    bool list = PyList_Check(what);
    Py_ssize_t n_parts = list ? PyList_Size(what) : 1;
    if (!room_for(self, n_parts))
        return false;
    for (Py_ssize_t i = 0; i < n_parts; i++) {
        PyObject *part = Py_XNewRef(list ? PyList_GetItem(what, i) : what);
        bool held = part && hold_part(self, part);
        Py_XDECREF(part);
        if (!held) {
            outgoing_let_go(self);
            return false;
        }
    }
    message_begin(&self->message, self->parts, (size_t)n_parts, sending->kind, sending->tag);
    self->pending = true;
    return true;
}

int outgoing_go_on(struct writer_object *self) {
    enum ring_result result;
    if (self->message.total > LARGE_BYTES) {
        Py_BEGIN_ALLOW_THREADS
        result = message_send(&self->writer, &self->message);
        Py_END_ALLOW_THREADS
    } else {
        result = message_send(&self->writer, &self->message);
    }
    if (result == RING_AGAIN)
        return 0;
    if (result == RING_OK)
        note_sent(self, self->message.tag, self->message.total);
    outgoing_let_go(self);
    if (result == RING_OK)
        return 1;
    raise_result((PyObject *)self, &self->owner->ring, result);
    return -1;
}

void outgoing_give_up(struct writer_object *self) {
    if (self->pending)
        message_abandon(&self->writer, &self->message);
    outgoing_let_go(self);
}

/* Where a message of `size` bytes goes. NULL if it needs fragments or has no space. */
static unsigned char *claim_whole(struct writer_object *self, size_t size) {
    enum ring_result result;
    if (self->writer.torn || size > ring_max_record(&self->owner->ring))
        return NULL;
    return ring_claim(&self->writer, (uint32_t)size, &result);
}

static void publish_whole(struct writer_object *self, const struct sending *sending, size_t size) {
    ring_publish(&self->writer, (struct record_header){.length = (uint32_t)size,
                                                       .kind = sending->kind,
                                                       .tag = sending->tag});
    note_sent(self, sending->tag, size);
}

bool outgoing_put_bytes(struct writer_object *self, const struct sending *sending) {
    if (!PyBytes_CheckExact(sending->what))
        return false;
    size_t size = (size_t)PyBytes_GET_SIZE(sending->what);
    unsigned char *memory = size <= LARGE_BYTES ? claim_whole(self, size) : NULL;
    if (!memory)
        return false;
    memcpy(memory, PyBytes_AS_STRING(sending->what), size);
    publish_whole(self, sending, size);
    return true;
}

bool outgoing_put_packed(struct writer_object *self, const struct sending *sending, size_t size) {
    unsigned char *memory = claim_whole(self, size);
    if (!memory)
        return false;
    values_pack(memory, sending->what);
    publish_whole(self, sending, size);
    return true;
}
