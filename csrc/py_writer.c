/* Writer: the writing end of a ring. One thread at a time; the caller keeps others out. */
#include "module.h"

enum { INLINE_PARTS = 16 };

struct writer_object {
    PyObject_HEAD struct ring_object *owner;
    struct ring_writer writer;
    struct outgoing message;
    bool busy;    /* a thread is within one of the methods, */
    bool pending; /* a message is under way, and `views` are held for it */
    Py_ssize_t n_views;
    Py_buffer *views;
    struct iovec *parts;
    Py_buffer inline_views[INLINE_PARTS];
    struct iovec inline_parts[INLINE_PARTS];
    _Atomic uint32_t interrupts;
    uint32_t interrupts_seen;
    struct inbox_object *watched; /* during wait() */
    struct strategy strategy;     /* never learns: space comes when a reader gets to it */
    _Atomic uint64_t counts[N_WAIT_COUNTS];
    _Atomic uint64_t *bytes_out;
    PyObject *line_owner;
};

static PyObject *writer_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"ring", "line", "wait", NULL};
    struct module_state *state = PyType_GetModuleState(type);
    PyObject *ring, *line = Py_None;
    int wait = WAIT_AUTO;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|Oi:Writer", names, &ring, &line, &wait) ||
        !check_strategy(wait))
        return NULL;
    if (!PyObject_TypeCheck(ring, state->ring_type) ||
        (line != Py_None && !PyObject_TypeCheck(line, state->line_type))) {
        PyErr_SetString(PyExc_TypeError, "Writer(ring: Ring, line: StatusLine | None, wait: int)");
        return NULL;
    }
    if (!check_generation(((struct ring_object *)ring)->generation) ||
        (line != Py_None && !check_page(((struct line_object *)line)->owner)))
        return NULL;
    struct writer_object *self = (struct writer_object *)PyType_GenericAlloc(type, 0);
    if (!self)
        return NULL;
    self->owner = (struct ring_object *)Py_NewRef(ring);
    self->line_owner = Py_NewRef(line);
    if (line != Py_None)
        self->bytes_out = &((struct line_object *)line)->line->bytes_out;
    ring_writer_init(&self->writer, &self->owner->ring);
    strategy_init(&self->strategy, (enum wait_strategy)wait, NULL, false);
    return (PyObject *)self;
}

static void let_go(struct writer_object *self) {
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

static void writer_dealloc(PyObject *object) {
    struct writer_object *self = (struct writer_object *)object;
    PyTypeObject *type = Py_TYPE(object);
    let_go(self);
    Py_XDECREF((PyObject *)self->owner);
    Py_XDECREF(self->line_owner);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
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
    let_go(self);
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

/* A thread that waits for space lets others run, and a signal's handler may come within it. */
static bool enter(struct writer_object *self) {
    if (!check_generation(self->owner->generation))
        return false;
    if (self->busy)
        PyErr_SetString(PyExc_RuntimeError, "another thread is at work with this writer");
    else
        self->busy = true;
    return !PyErr_Occurred();
}

/* What a sending method is called with: (kind, tag, what, timeout=None). */
struct sending {
    uint16_t kind;
    uint64_t tag;
    PyObject *what, *timeout;
};

static bool read_arguments(struct writer_object *self, PyObject *const *args, Py_ssize_t n_args,
                           struct sending *sending) {
    if (n_args < 3) {
        PyErr_SetString(PyExc_TypeError, "expected kind, tag, and what to send");
        return false;
    }
    if (self->pending) {
        PyErr_SetString(PyExc_RuntimeError, "another message is under way");
        return false;
    }
    unsigned long kind = PyLong_AsUnsignedLong(args[0]);
    unsigned long long tag = PyLong_AsUnsignedLongLong(args[1]);
    if (PyErr_Occurred())
        return false;
    if (kind > UINT16_MAX) {
        PyErr_Format(PyExc_OverflowError, "kind %lu: at most %d", kind, UINT16_MAX);
        return false;
    }
    *sending = (struct sending){(uint16_t)kind, tag, args[2], n_args > 3 ? args[3] : NULL};
    return true;
}

/* Begins a message of what is bytes, or a list of buffers. */
static bool begin(struct writer_object *self, const struct sending *sending) {
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
            let_go(self);
            return false;
        }
    }
    message_begin(&self->message, self->parts, (size_t)n_parts, sending->kind, sending->tag);
    self->pending = true;
    return true;
}

/* 1: it is out. 0: no space yet. -1: the ring has ended; an exception is set. */
static int go_on(struct writer_object *self) {
    enum ring_result result;
    if (self->message.total > LARGE_BYTES) {
        Py_BEGIN_ALLOW_THREADS result = message_send(&self->writer, &self->message);
        Py_END_ALLOW_THREADS
    } else {
        result = message_send(&self->writer, &self->message);
    }
    if (result == RING_AGAIN)
        return 0;
    if (self->bytes_out && result == RING_OK)
        status_add(self->bytes_out, self->message.total);
    let_go(self);
    if (result == RING_OK)
        return 1;
    raise_result((PyObject *)self, &self->owner->ring, result);
    return -1;
}

static void give_up(struct writer_object *self) {
    if (self->pending)
        message_abandon(&self->writer, &self->message);
    let_go(self);
}

static uint32_t next_length(struct writer_object *self) {
    return self->pending ? message_next_length(&self->writer, &self->message) : 0;
}

static bool wait_is_over(void *condition) {
    struct writer_object *self = condition;
    return ring_writable(&self->writer, next_length(self)) ||
           self->interrupts != self->interrupts_seen ||
           (self->watched && inbox_readable(self->watched));
}

/* As wait_python(): until there is space, an interrupt, or something in the watched inbox. */
static int wait_for_space(struct writer_object *self, uint64_t deadline_ns) {
    struct waiter waiter = {
        .bell = self->owner->ring.space_bell,
        .bit = SPACE_BIT,
        .ready = wait_is_over,
        .condition = self,
        .counts = wait_counts_of(NULL, self->counts),
    };
    struct waiting waiting = {0};
    ring_want(&self->writer, next_length(self));
    return wait_python(&self->strategy, &waiting, &waiter, deadline_ns);
}

static PyObject *writer_try_send(struct writer_object *self, PyObject *const *args,
                                 Py_ssize_t n_args) {
    struct sending sending;
    if (!enter(self))
        return NULL;
    int sent = -1;
    if (read_arguments(self, args, n_args, &sending) && begin(self, &sending))
        sent = go_on(self);
    self->busy = false;
    return sent < 0 ? NULL : PyBool_FromLong(sent);
}

static PyObject *writer_resume(struct writer_object *self, PyObject *Py_UNUSED(none)) {
    if (!enter(self))
        return NULL;
    int sent = -1;
    if (self->pending)
        sent = go_on(self);
    else
        PyErr_SetString(PyExc_RuntimeError, "no message is under way");
    self->busy = false;
    return sent < 0 ? NULL : PyBool_FromLong(sent);
}

static PyObject *writer_abandon(struct writer_object *self, PyObject *Py_UNUSED(none)) {
    if (!enter(self))
        return NULL;
    give_up(self);
    self->busy = false;
    Py_RETURN_NONE;
}

static PyObject *writer_interrupt(struct writer_object *self, PyObject *Py_UNUSED(none)) {
    atomic_fetch_add(&self->interrupts, 1);
    if (!check_generation(self->owner->generation))
        return NULL;
    bell_notify(self->owner->ring.space_bell, SPACE_BIT);
    Py_RETURN_NONE;
}

static PyObject *writer_wait(struct writer_object *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"inbox", "timeout", NULL};
    PyObject *inbox = Py_None, *timeout = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|OO:wait", names, &inbox, &timeout))
        return NULL;
    if (inbox != Py_None &&
        !PyObject_TypeCheck(inbox, module_state_of((PyObject *)self)->inbox_type)) {
        PyErr_SetString(PyExc_TypeError, "wait(inbox: Inbox | None, timeout: float | None)");
        return NULL;
    }
    uint64_t deadline_ns = deadline_of(timeout);
    if (PyErr_Occurred())
        return NULL;
    struct inbox_object *watched = inbox == Py_None ? NULL : (struct inbox_object *)inbox;
    if (watched && (!check_generation(watched->generation) || watched->busy)) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_RuntimeError, "another thread reads this inbox");
        return NULL;
    }
    if (!enter(self))
        return NULL;
    self->watched = watched;
    if (watched)
        watched->busy = true;
    int ready = wait_for_space(self, deadline_ns);
    self->busy = false;
    self->watched = NULL;
    if (watched) {
        watched->busy = false;
        /* An interrupt of the inbox has ended this wait; left unseen, it would end every next one.
         */
        watched->interrupts_seen = watched->interrupts;
    }
    self->interrupts_seen = self->interrupts;
    return ready < 0 ? NULL : PyBool_FromLong(ready);
}

/* begin() and go_on() until it is out. False with an exception set. */
static bool send_waiting(struct writer_object *self, const struct sending *sending) {
    if (!begin(self, sending))
        return false;
    int sent = go_on(self);
    if (sent == 0) {
        uint64_t deadline_ns = deadline_of(sending->timeout);
        int ready = PyErr_Occurred() ? -1 : 1;
        while (sent == 0 && ready > 0) {
            ready = wait_for_space(self, deadline_ns);
            self->interrupts_seen = self->interrupts;
            if (ready >= 0)
                sent = go_on(self);
        }
        if (sent == 0) {
            give_up(self);
            if (ready == 0)
                PyErr_SetString(PyExc_TimeoutError, "no space in the ring before the deadline");
        }
    }
    return sent == 1;
}

static PyObject *writer_send(struct writer_object *self, PyObject *const *args, Py_ssize_t n_args) {
    struct sending sending;
    if (!enter(self))
        return NULL;
    bool sent = read_arguments(self, args, n_args, &sending) && send_waiting(self, &sending);
    self->busy = false;
    if (!sent)
        return NULL;
    Py_RETURN_NONE;
}

/* A plain value, measured, straight into the ring; false when it doesn't go in there as it is. */
static bool put_packed(struct writer_object *self, const struct sending *sending, size_t size) {
    enum ring_result result;
    if (self->writer.torn || size > ring_max_record(&self->owner->ring))
        return false;
    unsigned char *memory = ring_claim(&self->writer, (uint32_t)size, &result);
    if (!memory)
        return false;
    pack_into(memory, sending->what);
    ring_publish(&self->writer, (struct record_header){.length = (uint32_t)size,
                                                       .kind = sending->kind | KIND_PACKED,
                                                       .tag = sending->tag});
    if (self->bytes_out)
        status_add(self->bytes_out, size);
    return true;
}

/* 1: it is out. 0: no plain value. -1 with an exception set. */
static int send_packed(struct writer_object *self, struct sending *sending) {
    Py_ssize_t size = packed_size(sending->what);
    if (size < 0)
        return 0;
    if (put_packed(self, sending, (size_t)size))
        return 1;
    /* It has to wait, or goes in fragments, or the ring has ended: as any bytes. */
    PyObject *packed = PyBytes_FromStringAndSize(NULL, size);
    if (!packed)
        return -1;
    pack_into(PyBytes_AS_STRING(packed), sending->what);
    sending->what = packed;
    sending->kind |= KIND_PACKED;
    bool sent = send_waiting(self, sending);
    Py_DECREF(packed);
    return sent ? 1 : -1;
}

static PyObject *writer_send_packed(struct writer_object *self, PyObject *const *args,
                                    Py_ssize_t n_args) {
    struct sending sending;
    if (!enter(self))
        return NULL;
    int sent = read_arguments(self, args, n_args, &sending) ? send_packed(self, &sending) : -1;
    self->busy = false;
    return sent < 0 ? NULL : PyBool_FromLong(sent);
}

static PyObject *get_pending(struct writer_object *self, void *Py_UNUSED(closure)) {
    return PyBool_FromLong(self->pending);
}

static PyMethodDef writer_methods[] = {
    {"send", (PyCFunction)(void (*)(void))writer_send, METH_FASTCALL, NULL},
    {"send_packed", (PyCFunction)(void (*)(void))writer_send_packed, METH_FASTCALL, NULL},
    {"try_send", (PyCFunction)(void (*)(void))writer_try_send, METH_FASTCALL, NULL},
    {"resume", (PyCFunction)writer_resume, METH_NOARGS, NULL},
    {"abandon", (PyCFunction)writer_abandon, METH_NOARGS, NULL},
    {"interrupt", (PyCFunction)writer_interrupt, METH_NOARGS, NULL},
    {"wait", (PyCFunction)(void (*)(void))writer_wait, METH_VARARGS | METH_KEYWORDS, NULL},
    {0},
};

static PyGetSetDef writer_properties[] = {
    {"pending", (getter)get_pending, NULL, NULL, NULL},
    {0},
};

static PyType_Slot writer_slots[] = {
    {Py_tp_doc, "The writing end of a ring; see _native.pyi."},
    {Py_tp_new, writer_new},
    {Py_tp_dealloc, writer_dealloc},
    {Py_tp_methods, writer_methods},
    {Py_tp_getset, writer_properties},
    {0, NULL},
};

PyType_Spec writer_spec = {
    .name = "mpspmd._native.Writer",
    .basicsize = sizeof(struct writer_object),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = writer_slots,
};
