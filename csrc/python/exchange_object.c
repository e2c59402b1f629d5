#include "python/exchange_object.h"

#include <stddef.h>

#include "python/values.h"

#define NEVER_NS (UINT64_MAX / 2)

static int exchange_init(PyObject *object, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"requests",  "replies",      "page", "pending",
                            "call_type", "decode_reply", NULL};
    struct exchange_object *self = (struct exchange_object *)object;
    struct module_state *state = module_state_of_type(Py_TYPE(object));
    PyObject *requests, *replies, *page, *pending, *call_type, *decode_reply = Py_None;
    if (!state || !PyArg_ParseTupleAndKeywords(args, kwargs, "O!O!O!O!O!|O:Exchange", names,
                                               state->writer_type, &requests, state->inbox_type,
                                               &replies, state->page_type, &page, &PyDict_Type,
                                               &pending, &PyType_Type, &call_type, &decode_reply))
        return -1;
    if (self->state || self->followers ||
        !PyType_IsSubtype((PyTypeObject *)call_type, state->call_type)) {
        PyErr_SetString(PyExc_TypeError, "Exchange(…, call_type): a class that derives from Call, "
                                         "and once for each object");
        return -1;
    }
    if (!page_check_writable((struct page_object *)page))
        return -1;
    self->followers = PyList_New(0);
    self->untold = PyList_New(0);
    if (!self->followers || !self->untold)
        return -1;
    self->requests = (struct writer_object *)Py_NewRef(requests);
    self->replies = (struct inbox_object *)Py_NewRef(replies);
    self->page = (struct page_object *)Py_NewRef(page);
    self->pending = Py_NewRef(pending);
    self->call_type = (PyTypeObject *)Py_NewRef(call_type);
    self->decode_reply = Py_NewRef(decode_reply);
    self->state = state;
    return 0;
}

/* No tp_clear: `decode_reply` and `note_reply` know no exchange, and every circle goes through
 * `pending`, `untold` or the attributes of a derived class. */
static int exchange_traverse(PyObject *object, visitproc visit, void *arg) {
    struct exchange_object *self = (struct exchange_object *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->pending);
    Py_VISIT(self->followers);
    Py_VISIT(self->untold);
    for (unsigned i = 0; i < self->n_untaken; i++)
        Py_VISIT(self->untaken[i].payload);
    Py_VISIT(self->call_type);
    Py_VISIT(self->decode_reply);
    Py_VISIT(self->note_reply);
    return 0;
}

static void exchange_dealloc(PyObject *object) {
    struct exchange_object *self = (struct exchange_object *)object;
    PyObject_GC_UnTrack(object);
    Py_XDECREF((PyObject *)self->requests);
    Py_XDECREF((PyObject *)self->replies);
    Py_XDECREF((PyObject *)self->page);
    Py_XDECREF(self->pending);
    Py_XDECREF(self->followers);
    Py_XDECREF(self->untold);
    Py_XDECREF((PyObject *)self->call_type);
    Py_XDECREF(self->decode_reply);
    Py_XDECREF(self->note_reply);
    while (self->n_untaken > 0)
        Py_DECREF(self->untaken[--self->n_untaken].payload);
    extension_free(object);
}

static bool is_ready(const struct exchange_object *self) {
    if (!self->state)
        PyErr_SetString(PyExc_RuntimeError, "Exchange.__init__() wasn't called");
    return self->state != NULL;
}

/* Nanoseconds of CLOCK_MONOTONIC from what time.monotonic() returns, or None for never. */
static bool to_deadline(PyObject *seconds, uint64_t *ns) {
    *ns = NEVER_NS;
    if (!seconds || seconds == Py_None)
        return true;
    double number = PyFloat_AsDouble(seconds);
    if (!(number > 0))
        *ns = 0;
    else if (number < 1e9)
        *ns = (uint64_t)(number * 1e9);
    return !PyErr_Occurred();
}

/* Sends what writer_try() takes. 1: it was sent. 0: it must be sent slowly. -1 with an exception
 * set. `what` and `call` were made before, because that may start the garbage collector, whose
 * finalizers may send requests too. */
static int send_now(struct exchange_object *self, uint16_t kind, PyObject *what, Py_ssize_t size,
                    struct call_object *call) {
    uint64_t step = self->steps + 1;
    call->step = PyLong_FromUnsignedLongLong(step);
    if (!call->step)
        return -1;
    call_set_size(call, (size_t)(size < 0 ? PyBytes_GET_SIZE(what) : size));
    /* Before it is sent, because this may fail. */
    bool awaited = call->ranks != Py_None;
    if (awaited && PyDict_SetItem(self->pending, call->step, (PyObject *)call) != 0)
        return -1;
    if (writer_try(self->requests, kind, step, what, size)) {
        self->steps = step;
        call->began = (double)self->requests->writer.published_ns / 1e9;
        page_note_sent(self->page, step);
        return 1;
    }
    return awaited && PyDict_DelItem(self->pending, call->step) != 0 ? -1 : 0;
}

static struct call_object *new_call(struct exchange_object *self, PyObject *method, PyObject *ranks,
                                    PyObject *deadline) {
    return call_new(self->state, self->call_type, method, ranks, deadline,
                    (Py_ssize_t)self->page->status.n_ranks);
}

/* What a sending method returns. */
static PyObject *call_or_none(struct call_object *call, int sent) {
    if (sent > 0)
        return (PyObject *)call;
    Py_XDECREF((PyObject *)call);
    return sent < 0 ? NULL : Py_NewRef(Py_None);
}

/* send_plain(method, args, kwargs, reply_ranks, deadline) */
static PyObject *exchange_send_plain(struct exchange_object *self, PyObject *const *args,
                                     Py_ssize_t n_args) {
    if (n_args != 5)
        return PyErr_Format(PyExc_TypeError,
                            "send_plain(method, args, kwargs, reply_ranks, deadline)");
    if (!is_ready(self))
        return NULL;
    if (!PyUnicode_CheckExact(args[0]) || !PyTuple_Check(args[1]) || !PyDict_Check(args[2]))
        Py_RETURN_NONE;
    PyObject *request = PyTuple_Pack(4, args[0], args[1], args[2], args[3]);
    if (!request)
        return NULL;
    struct call_object *call = new_call(self, args[0], args[3], args[4]);
    Py_ssize_t size = call && self->sender == 0 ? values_size(request) : -1;
    int sent = call ? 0 : -1;
    if (size >= 0)
        sent = send_now(self, KIND_REQUEST | KIND_PACKED, request, size, call);
    Py_DECREF(request);
    return call_or_none(call, sent);
}

/* send_encoded(kind, message, method, reply_ranks, deadline, reply_context) */
static PyObject *exchange_send_encoded(struct exchange_object *self, PyObject *const *args,
                                       Py_ssize_t n_args) {
    if (!is_ready(self))
        return NULL;
    if (n_args != 6 || !PyLong_Check(args[0]) || !PyUnicode_Check(args[2]) ||
        self->sender != PyThread_get_thread_ident())
        return PyErr_Format(PyExc_TypeError, "send_encoded(kind, message, method, reply_ranks, "
                                             "deadline, reply_context), only by the sender");
    if (!PyBytes_CheckExact(args[1]))
        Py_RETURN_NONE;
    struct call_object *call = new_call(self, args[2], args[3], args[4]);
    int sent = call ? 0 : -1;
    if (call) {
        call->reply_context = args[5] == Py_None ? NULL : Py_NewRef(args[5]);
        sent = send_now(self, (uint16_t)PyLong_AsUnsignedLongMask(args[0]), args[1], -1, call);
    }
    return call_or_none(call, sent);
}

/* read_for(call, limit, tells) */
static PyObject *exchange_read_for(struct exchange_object *self, PyObject *const *args,
                                   Py_ssize_t n_args) {
    if (!is_ready(self))
        return NULL;
    if (n_args != 3 || !PyObject_TypeCheck(args[0], self->state->call_type))
        return PyErr_Format(PyExc_TypeError,
                            "read_for(call: Call, limit: float | None, tells: bool)");
    struct call_object *call = (struct call_object *)args[0];
    uint64_t deadline_ns, limit_ns;
    if (!to_deadline(call->deadline, &deadline_ns) || !to_deadline(args[1], &limit_ns))
        return NULL;
    unsigned long this = PyThread_get_thread_ident();
    bool leads_already = self->leader == this; /* a finalizer, or a signal's handler */
    bool tells = args[2] == Py_True;
    if (exchange_is_over(self, call, tells))
        Py_RETURN_TRUE;
    if (self->leader && !leads_already)
        Py_RETURN_FALSE;
    self->leader = this;
    Py_INCREF((PyObject *)call);
    int read =
        exchange_read_until(self, call, limit_ns < deadline_ns ? limit_ns : deadline_ns, tells);
    Py_DECREF((PyObject *)call);
    if (!leads_already) {
        if (!exchange_give_up_lead(self))
            read = -1;
        if (self->sender_waits)
            writer_interrupt(self->requests);
    }
    return read < 0 ? NULL : PyBool_FromLong(read);
}

static PyObject *exchange_drain(struct exchange_object *self, PyObject *Py_UNUSED(none)) {
    if (!is_ready(self) || !exchange_read_all(self))
        return NULL;
    Py_RETURN_NONE;
}

/* end(call, error) */
static PyObject *exchange_end(struct exchange_object *self, PyObject *const *args,
                              Py_ssize_t n_args) {
    if (!is_ready(self))
        return NULL;
    if (n_args != 2 || !PyObject_TypeCheck(args[0], self->state->call_type))
        return PyErr_Format(PyExc_TypeError, "end(call: Call, error: BaseException | None)");
    int ended = exchange_end_call(self, (struct call_object *)args[0], args[1]);
    return ended < 0 ? NULL : PyBool_FromLong(ended);
}

static PyObject *exchange_lead(struct exchange_object *self, PyObject *Py_UNUSED(none)) {
    unsigned long this = PyThread_get_thread_ident();
    if (!is_ready(self))
        return NULL;
    bool leads_already = self->leader == this;
    if (self->leader == 0)
        self->leader = this;
    /* A finalizer or a signal's handler may read, but not while a message comes or is decoded. */
    bool may_read =
        !self->replies->listener.busy && (self->replies->current < 0 || self->n_untaken > 0);
    return PyBool_FromLong(self->leader == this && (!leads_already || may_read));
}

static PyObject *exchange_stop_leading(struct exchange_object *self, PyObject *Py_UNUSED(none)) {
    if (!is_ready(self) || !exchange_give_up_lead(self))
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *exchange_begin_sending(struct exchange_object *self, PyObject *Py_UNUSED(none)) {
    bool begins = self->sender == 0;
    if (begins)
        self->sender = PyThread_get_thread_ident();
    return PyBool_FromLong(begins);
}

static PyObject *exchange_end_sending(struct exchange_object *self, PyObject *Py_UNUSED(none)) {
    if (self->sender == PyThread_get_thread_ident())
        self->sender = 0;
    Py_RETURN_NONE;
}

static PyMethodDef exchange_methods[] = {
    {"send_plain", (PyCFunction)(void (*)(void))exchange_send_plain, METH_FASTCALL, NULL},
    {"send_encoded", (PyCFunction)(void (*)(void))exchange_send_encoded, METH_FASTCALL, NULL},
    {"read_for", (PyCFunction)(void (*)(void))exchange_read_for, METH_FASTCALL, NULL},
    {"drain", (PyCFunction)exchange_drain, METH_NOARGS, NULL},
    {"end", (PyCFunction)(void (*)(void))exchange_end, METH_FASTCALL, NULL},
    {"lead", (PyCFunction)exchange_lead, METH_NOARGS, NULL},
    {"stop_leading", (PyCFunction)exchange_stop_leading, METH_NOARGS, NULL},
    {"begin_sending", (PyCFunction)exchange_begin_sending, METH_NOARGS, NULL},
    {"end_sending", (PyCFunction)exchange_end_sending, METH_NOARGS, NULL},
    {0},
};

#define MEMBER(name, type, flags) {#name, type, offsetof(struct exchange_object, name), flags, NULL}

static PyMemberDef exchange_members[] = {
    MEMBER(steps, T_ULONGLONG, 0),
    MEMBER(leader, T_ULONG, READONLY),
    MEMBER(sender, T_ULONG, READONLY),
    MEMBER(followers, T_OBJECT, READONLY),
    MEMBER(untold, T_OBJECT, READONLY), /* its items change, not the list */
    MEMBER(sender_waits, T_BOOL, 0),
    MEMBER(note_reply, T_OBJECT, 0),
    {0},
};

static PyType_Slot exchange_slots[] = {
    {Py_tp_doc, "Requests under way, and who reads the replies; see _ring.pyi."},
    {Py_tp_init, exchange_init},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_traverse, exchange_traverse},
    {Py_tp_dealloc, exchange_dealloc},
    {Py_tp_methods, exchange_methods},
    {Py_tp_members, exchange_members},
    {0, NULL},
};

PyType_Spec exchange_object_spec = {
    .name = "mpspmd._ring.Exchange",
    .basicsize = sizeof(struct exchange_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = exchange_slots,
};
