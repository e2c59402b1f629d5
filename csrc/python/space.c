/* A writer that waits for space in its ring. */
#include "python/arguments.h"
#include "python/module.h"
#include "python/outgoing.h"
#include "python/values.h"
#include "python/waits.h"

static uint32_t next_length(struct writer_object *self) {
    return self->pending ? message_next_length(&self->writer, &self->message) : 0;
}

static bool wait_is_over(void *condition) {
    struct writer_object *self = condition;
    return ring_writable(&self->writer, next_length(self)) ||
           self->interrupts != self->interrupts_seen ||
           (self->watched && inbox_is_readable(self->watched));
}

int space_wait(struct writer_object *self, uint64_t deadline_ns) {
    struct waiter waiter = {
        .bell = self->owner->ring.space_bell,
        .bit = SPACE_BIT,
        .ready = wait_is_over,
        .condition = self,
        .counters = self->counters,
    };
    struct waiting waiting = {0};
    uint32_t length = next_length(self);
    uint64_t patient_ns = monotonic_ns() + RING_PATIENCE_NS;
    ring_want(&self->writer, length);
    if (deadline_ns > patient_ns) {
        int ready = waits_run(&self->strategy, &waiting, &waiter, patient_ns);
        if (ready != 0)
            return ready;
        ring_want_least(&self->writer, length);
    }
    return waits_run(&self->strategy, &waiting, &waiter, deadline_ns);
}

int space_send(struct writer_object *self, struct sending *sending) {
    if (outgoing_put_bytes(self, sending))
        return 1;
    if (!outgoing_begin(self, sending))
        return -1;
    int sent = outgoing_go_on(self);
    if (sent == 0) {
        uint64_t deadline_ns = argument_deadline(sending->timeout);
        int ready = PyErr_Occurred() ? -1 : 1;
        while (sent == 0 && ready > 0) {
            ready = space_wait(self, deadline_ns);
            self->interrupts_seen = self->interrupts;
            if (ready >= 0)
                sent = outgoing_go_on(self);
        }
        if (sent == 0) {
            outgoing_give_up(self);
            if (ready == 0)
                PyErr_SetString(PyExc_TimeoutError, "no space in the ring before the deadline");
        }
    }
    return sent == 1 ? 1 : -1;
}

int space_send_packed(struct writer_object *self, struct sending *sending) {
    Py_ssize_t size = values_size(sending->what);
    if (size < 0)
        return 0;
    sending->kind |= KIND_PACKED;
    if (outgoing_put_packed(self, sending, (size_t)size))
        return 1;
    /* It has to wait, needs fragments, or the ring has ended: send it as bytes. */
    PyObject *packed = PyBytes_FromStringAndSize(NULL, size);
    if (!packed)
        return -1;
    values_pack(PyBytes_AS_STRING(packed), sending->what);
    sending->what = packed;
    int sent = space_send(self, sending);
    Py_DECREF(packed);
    return sent;
}
