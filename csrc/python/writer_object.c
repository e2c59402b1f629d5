#include "python/writer_object.h"

#include <stddef.h>
#include <unistd.h>

#include "python/arguments.h"
#include "python/fork.h"
#include "python/module.h"
#include "python/outgoing.h"
#include "python/page_object.h"
#include "python/raise.h"
#include "python/recorder_object.h"
#include "python/values.h"
#include "python/waits.h"

static bool take_ring(struct writer_object *self, struct module_state *state) {
    struct ring *ring = &self->owner->ring;
    uint32_t holder = 0;
    enum ring_result result = ring_writer_init(&self->writer, ring, (uint32_t)getpid(), &holder);
    if (result == RING_TAKEN)
        PyErr_Format(
            state->channel_error,
            "process %u has a writer on this ring, and one at a time is possible: drop that "
            "one first; if the process is gone, nobody may write to this ring any more",
            (unsigned)holder);
    else if (result != RING_OK)
        raise_result((PyObject *)self, ring, result);
    return result == RING_OK;
}

/* The ring's next writer tells the readers about an unfinished message. In a forked child the ring
 * is still the parent's. */
static void give_ring_back(struct writer_object *self) {
    if (!self->writer.ring || !self->owner || self->owner->generation != fork_generation)
        return;
    if (self->pending)
        message_abandon(&self->writer, &self->message);
    ring_writer_release(&self->writer);
}

static PyObject *writer_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"ring", "line", "wait", "track", NULL};
    struct module_state *state = PyType_GetModuleState(type);
    PyObject *line_argument = Py_None, *track_owner = Py_None;
    struct ring_object *ring;
    struct line_object *line;
    struct track *track;
    int wait = WAIT_AUTO;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!|OiO:Writer", names, state->ring_type, &ring,
                                     &line_argument, &wait, &track_owner) ||
        !argument_is_strategy(wait) || !argument_optional(line_argument, state->line_type, &line) ||
        !fork_check(ring->generation) || !track_argument(state->track_type, track_owner, &track) ||
        (line && !page_check_writable(line->owner)))
        return NULL;
    struct writer_object *self = (struct writer_object *)PyType_GenericAlloc(type, 0);
    if (!self)
        return NULL;
    self->owner = (struct ring_object *)Py_NewRef((PyObject *)ring);
    self->line_owner = Py_NewRef(line_argument);
    self->track = track;
    self->track_owner = Py_NewRef(track_owner);
    if (line)
        self->bytes_out = &line->line->counters[COUNT_BYTES_OUT];
    if (!take_ring(self, state)) {
        Py_DECREF(self);
        return NULL;
    }
    strategy_init(&self->strategy, (enum wait_strategy)wait, NULL, 0);
    return (PyObject *)self;
}

static void writer_dealloc(PyObject *object) {
    struct writer_object *self = (struct writer_object *)object;
    give_ring_back(self);
    outgoing_let_go(self);
    Py_XDECREF((PyObject *)self->owner);
    Py_XDECREF(self->line_owner);
    Py_XDECREF(self->track_owner);
    extension_free(object);
}

/* Other threads and signals' handlers run while a thread waits for space. */
static bool enter(struct writer_object *self) {
    if (!fork_check(self->owner->generation))
        return false;
    if (self->busy)
        raise_busy("writer", "uses");
    else
        self->busy = true;
    return !PyErr_Occurred();
}

static bool may_begin(struct writer_object *self) {
    if (self->pending)
        PyErr_SetString(PyExc_RuntimeError, "another message is under way");
    return !self->pending;
}

static bool read_arguments(struct writer_object *self, PyObject *const *args, Py_ssize_t n_args,
                           struct sending *sending) {
    if (n_args < 3)
        return PyErr_Format(PyExc_TypeError, "expected kind, tag, and what to send");
    if (!may_begin(self))
        return false;
    unsigned long kind = PyLong_AsUnsignedLong(args[0]);
    unsigned long long tag = PyLong_AsUnsignedLongLong(args[1]);
    if (PyErr_Occurred())
        return false;
    if (kind > UINT16_MAX)
        return PyErr_Format(PyExc_OverflowError, "kind %lu: at most %d", kind, UINT16_MAX);
    *sending = (struct sending){(uint16_t)kind, tag, args[2], n_args > 3 ? args[3] : NULL};
    return true;
}

typedef int send_function(struct writer_object *self, struct sending *sending);

/* Sends what a method's arguments say. 1: it was sent. 0: it wasn't. -1 with an exception set. */
static inline int send_arguments(struct writer_object *self, PyObject *const *args,
                                 Py_ssize_t n_args, send_function *send) {
    struct sending sending;
    if (!enter(self))
        return -1;
    int sent = read_arguments(self, args, n_args, &sending) ? send(self, &sending) : -1;
    self->busy = false;
    return sent;
}

static PyObject *writer_send(struct writer_object *self, PyObject *const *args, Py_ssize_t n_args) {
    return send_arguments(self, args, n_args, space_send) < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *writer_send_packed_method(struct writer_object *self, PyObject *const *args,
                                           Py_ssize_t n_args) {
    int sent = send_arguments(self, args, n_args, space_send_packed);
    return sent < 0 ? NULL : PyBool_FromLong(sent);
}

static int begin_or_send(struct writer_object *self, struct sending *sending) {
    if (outgoing_put_bytes(self, sending))
        return 1;
    return outgoing_begin(self, sending) ? outgoing_go_on(self) : -1;
}

static PyObject *writer_try_send(struct writer_object *self, PyObject *const *args,
                                 Py_ssize_t n_args) {
    int sent = send_arguments(self, args, n_args, begin_or_send);
    return sent < 0 ? NULL : PyBool_FromLong(sent);
}

static PyObject *writer_resume(struct writer_object *self, PyObject *Py_UNUSED(none)) {
    if (!enter(self))
        return NULL;
    int sent = -1;
    if (self->pending)
        sent = outgoing_go_on(self);
    else
        PyErr_SetString(PyExc_RuntimeError, "no message is under way");
    self->busy = false;
    return sent < 0 ? NULL : PyBool_FromLong(sent);
}

static PyObject *writer_abandon(struct writer_object *self, PyObject *Py_UNUSED(none)) {
    if (!enter(self))
        return NULL;
    outgoing_give_up(self);
    self->busy = false;
    Py_RETURN_NONE;
}

void writer_interrupt(struct writer_object *self) {
    atomic_fetch_add(&self->interrupts, 1);
    if (self->owner->generation == fork_generation)
        bell_notify(self->owner->ring.space_bell, SPACE_BIT);
}

static PyObject *interrupt_method(struct writer_object *self, PyObject *Py_UNUSED(none)) {
    writer_interrupt(self);
    return fork_check(self->owner->generation) ? Py_NewRef(Py_None) : NULL;
}

static PyObject *writer_wait(struct writer_object *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"inbox", "timeout", NULL};
    PyObject *inbox = Py_None, *timeout = Py_None;
    struct inbox_object *watched;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|OO:wait", names, &inbox, &timeout) ||
        !argument_optional(inbox, module_state_of((PyObject *)self)->inbox_type, &watched))
        return NULL;
    uint64_t deadline_ns = argument_deadline(timeout);
    struct listener *listener = watched ? &watched->listener : NULL;
    if (PyErr_Occurred() || (listener && !fork_check(listener->generation)))
        return NULL;
    if (listener && listener->busy)
        return raise_busy("inbox", "reads");
    if (!enter(self))
        return NULL;
    self->watched = watched;
    if (listener)
        listener->busy = true;
    int ready = space_wait(self, deadline_ns);
    self->busy = false;
    self->watched = NULL;
    if (listener) {
        listener->busy = false;
        /* An interrupt of the inbox ends this wait only, and not every wait after it. */
        listener_take_interrupt(listener);
    }
    self->interrupts_seen = self->interrupts;
    return ready < 0 ? NULL : PyBool_FromLong(ready);
}

int writer_send_packed(struct writer_object *self, uint16_t kind, uint64_t tag, PyObject *value) {
    struct sending sending = {kind, tag, value, NULL};
    if (!enter(self))
        return -1;
    int sent = may_begin(self) ? space_send_packed(self, &sending) : -1;
    self->busy = false;
    return sent;
}

bool writer_try(struct writer_object *self, uint16_t kind, uint64_t tag, PyObject *what,
                Py_ssize_t size) {
    struct sending sending = {kind, tag, what, NULL};
    if (self->busy || self->pending || self->owner->generation != fork_generation)
        return false;
    return size < 0 ? outgoing_put_bytes(self, &sending)
                    : outgoing_put_packed(self, &sending, (size_t)size);
}

/* append(data) */
static PyObject *writer_append(struct writer_object *self, PyObject *data) {
    Py_buffer bytes;
    if (PyObject_GetBuffer(data, &bytes, PyBUF_SIMPLE) != 0)
        return NULL;
    if (!enter(self)) {
        PyBuffer_Release(&bytes);
        return NULL;
    }
    enum ring_result result;
    uint64_t taken = ring_append(&self->writer, bytes.buf, (uint64_t)bytes.len, &result);
    self->busy = false;
    PyBuffer_Release(&bytes);
    if (result != RING_OK && result != RING_AGAIN)
        return raise_result((PyObject *)self, &self->owner->ring, result);
    return PyLong_FromUnsignedLongLong(taken);
}

static PyObject *get_position(struct writer_object *self, void *Py_UNUSED(closure)) {
    return PyLong_FromUnsignedLongLong(ring_next(&self->writer));
}

static PyMethodDef writer_methods[] = {
    {"send", (PyCFunction)(void (*)(void))writer_send, METH_FASTCALL, NULL},
    {"send_packed", (PyCFunction)(void (*)(void))writer_send_packed_method, METH_FASTCALL, NULL},
    {"try_send", (PyCFunction)(void (*)(void))writer_try_send, METH_FASTCALL, NULL},
    {"resume", (PyCFunction)writer_resume, METH_NOARGS, NULL},
    {"append", (PyCFunction)writer_append, METH_O, NULL},
    {"abandon", (PyCFunction)writer_abandon, METH_NOARGS, NULL},
    {"interrupt", (PyCFunction)interrupt_method, METH_NOARGS, NULL},
    {"wait", (PyCFunction)(void (*)(void))writer_wait, METH_VARARGS | METH_KEYWORDS, NULL},
    {0},
};

static PyMemberDef writer_members[] = {
    {"pending", T_BOOL, offsetof(struct writer_object, pending), READONLY, NULL},
    {0},
};

static PyGetSetDef writer_properties[] = {
    {"position", (getter)get_position, NULL, NULL, NULL},
    {0},
};

static PyType_Slot writer_slots[] = {
    {Py_tp_doc, "The writing end of a ring; see _ring.pyi."},
    {Py_tp_new, writer_new},
    {Py_tp_dealloc, writer_dealloc},
    {Py_tp_methods, writer_methods},
    {Py_tp_members, writer_members},
    {Py_tp_getset, writer_properties},
    {0, NULL},
};

PyType_Spec writer_object_spec = {
    .name = "mpspmd._ring.Writer",
    .basicsize = sizeof(struct writer_object),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = writer_slots,
};
