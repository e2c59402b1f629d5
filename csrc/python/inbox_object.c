#include "python/inbox_object.h"

#include "python/arguments.h"
#include "python/fork.h"
#include "python/module.h"
#include "python/page_object.h"
#include "python/raise.h"
#include "python/recorder_object.h"

bool inbox_is_readable(struct inbox_object *inbox) {
    struct listener *listener = &inbox->listener;
    if (listener->interrupts != listener->interrupts_seen)
        return true;
    for (Py_ssize_t i = 0; i < listener->n; i++)
        if (!inbox->sources[i].ended && ring_readable(&listener->readers[i]))
            return true;
    return false;
}

static bool is_readable(void *condition) {
    return inbox_is_readable(condition);
}

static PyObject *inbox_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"rings", "slot", "line", "page", "wait", "track", NULL};
    PyObject *rings, *slot, *line_argument = Py_None, *page_argument = Py_None, *track = Py_None;
    struct line_object *line;
    struct page_object *page;
    int wait = WAIT_AUTO;
    struct module_state *state = PyType_GetModuleState(type);
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!O!|OOiO:Inbox", names, &PyTuple_Type, &rings,
                                     &PyLong_Type, &slot, &line_argument, &page_argument, &wait,
                                     &track) ||
        !argument_is_strategy(wait) || !argument_optional(line_argument, state->line_type, &line) ||
        !argument_optional(page_argument, state->page_type, &page) ||
        (line && !page_check_writable(line->owner)) || (page && !page_check_writable(page)))
        return NULL;
    struct inbox_object *self = (struct inbox_object *)PyType_GenericAlloc(type, 0);
    if (!self)
        return NULL;
    self->current = -1;
    self->line = line ? line->line : NULL;
    self->line_owner = Py_NewRef(line_argument);
    self->track_owner = Py_NewRef(track);
    self->sources = PyMem_Calloc((size_t)PyTuple_GET_SIZE(rings), sizeof *self->sources);
    if (!(self->sources || PyErr_NoMemory()) ||
        !track_argument(state->track_type, track, &self->track) ||
        !listener_open(&self->listener, (PyObject *)self, rings, slot, page_argument, wait,
                       is_readable, line ? line->line->counters : NULL))
        Py_CLEAR(self);
    return (PyObject *)self;
}

static void inbox_dealloc(PyObject *object) {
    struct inbox_object *self = (struct inbox_object *)object;
    for (Py_ssize_t i = 0; i < self->listener.n; i++)
        Py_XDECREF(self->sources[i].block);
    PyMem_Free(self->sources);
    listener_close(&self->listener);
    Py_XDECREF(self->line_owner);
    Py_XDECREF(self->track_owner);
    extension_free(object);
}

static bool enter(struct inbox_object *self) {
    if (!fork_check(self->listener.generation))
        return false;
    if (self->listener.busy)
        raise_busy("inbox", "reads");
    else if (self->current >= 0)
        PyErr_SetString(PyExc_RuntimeError, "release() the last record before reading the next");
    else
        self->listener.busy = true;
    return !PyErr_Occurred();
}

/* Tells the strategy when the message was sent. */
static void learn(struct inbox_object *self, const struct waiting *waiting,
                  const struct received *message) {
    const struct ring *ring = self->listener.readers[message->source].ring;
    /* If the message came at once, the writer may be writing this line now, and reading it would
     * take as long as the wait did. */
    uint64_t sent_ns =
        waiting->at_once ? 0
                         : atomic_load_explicit(&ring->shared->published_ns, memory_order_relaxed);
    strategy_learn(&self->listener.strategy, waiting, &self->listener.waiter, sent_ns);
}

/* As inbox_receive(), for a reader that has entered. */
static int receive(struct inbox_object *self, uint64_t deadline_ns, struct waiting *waiting,
                   struct received *message) {
    bool waited = false;
    int found = received_poll(self, message);
    while (found == 0) {
        if (listener_take_interrupt(&self->listener))
            return 0;
        waited = true;
        int ready =
            waits_run(&self->listener.strategy, waiting, &self->listener.waiter, deadline_ns);
        found = ready < 0 ? -1 : received_poll(self, message);
        if (ready == 0 && found == 0)
            return RECEIVED_LATE;
    }
    if (found > 0 && waited)
        learn(self, waiting, message);
    if (found > 0)
        *waiting = (struct waiting){.key = waiting->key};
    return found;
}

/* The end of inbox_receive() and inbox_poll(). */
static int accept(struct inbox_object *self, int found, const struct received *message) {
    if (found == 1)
        received_accept(self, message);
    self->listener.busy = false;
    return found;
}

int inbox_receive(struct inbox_object *self, uint64_t deadline_ns, struct waiting *waiting,
                  struct received *message) {
    return enter(self) ? accept(self, receive(self, deadline_ns, waiting, message), message) : -1;
}

int inbox_poll(struct inbox_object *self, struct received *message) {
    return enter(self) ? accept(self, received_poll(self, message), message) : -1;
}

/* What a method returns that has entered. If there is no memory for the tuple, the next call gets
 * the message, if it is in one record. */
static PyObject *leave(struct inbox_object *self, int found, struct received *message) {
    PyObject *tuple = NULL;
    if (found == RECEIVED_LATE)
        PyErr_SetString(PyExc_TimeoutError, "nothing came before the deadline");
    if (found == 1) {
        tuple = received_tuple(message);
        Py_DECREF(message->payload);
        if (tuple)
            received_accept(self, message);
        else
            self->current = -1;
    }
    self->listener.busy = false;
    return found == 0 ? Py_NewRef(Py_None) : tuple;
}

/* recv(timeout=None, key=0) */
static PyObject *inbox_recv(struct inbox_object *self, PyObject *const *args, Py_ssize_t n_args) {
    uint64_t deadline_ns = argument_deadline(n_args > 0 ? args[0] : NULL);
    struct waiting waiting = {.key = n_args > 1 ? PyLong_AsUnsignedLongLongMask(args[1]) : 0};
    struct received message;
    if (PyErr_Occurred() || !enter(self))
        return NULL;
    return leave(self, receive(self, deadline_ns, &waiting, &message), &message);
}

static PyObject *inbox_try_recv(struct inbox_object *self, PyObject *Py_UNUSED(none)) {
    struct received message;
    return enter(self) ? leave(self, received_poll(self, &message), &message) : NULL;
}

bool inbox_release_record(struct inbox_object *self) {
    if (self->current < 0)
        return true;
    if (self->exports > 0)
        PyErr_Format(PyExc_BufferError,
                     "%zd views of the record in the ring are still held: copy what you keep",
                     self->exports);
    if (self->exports > 0 || !fork_check(self->listener.generation))
        return false;
    ring_release(&self->listener.readers[self->current],
                 &self->sources[self->current].message.record);
    self->current = -1;
    return true;
}

static PyObject *inbox_release(struct inbox_object *self, PyObject *Py_UNUSED(none)) {
    return inbox_release_record(self) ? Py_NewRef(Py_None) : NULL;
}

static PyObject *inbox_interrupt(struct inbox_object *self, PyObject *Py_UNUSED(none)) {
    return listener_interrupt(&self->listener);
}

static PyObject *get_wait_counts(struct inbox_object *self, void *Py_UNUSED(closure)) {
    const _Atomic uint64_t *counters = self->listener.waiter.counters;
    PyObject *dict = fork_check(self->listener.generation) ? PyDict_New() : NULL;
    if (dict && !waits_add_counters(dict, counters, COUNT_SPINS, COUNT_MISPREDICTED))
        Py_CLEAR(dict);
    return dict;
}

static int inbox_getbuffer(struct inbox_object *self, Py_buffer *view, int flags) {
    view->obj = NULL;
    if (!fork_check(self->listener.generation))
        return -1;
    if (self->current < 0) {
        PyErr_SetString(PyExc_BufferError, "no record is being read in place");
        return -1;
    }
    const struct record *record = &self->sources[self->current].message.record;
    if (PyBuffer_FillInfo(view, (PyObject *)self, (void *)record->payload,
                          (Py_ssize_t)record->header.length, 1, flags) != 0)
        return -1;
    self->exports++;
    return 0;
}

static void inbox_releasebuffer(struct inbox_object *self, Py_buffer *Py_UNUSED(view)) {
    self->exports--;
}

static PyMethodDef inbox_methods[] = {
    {"recv", (PyCFunction)(void (*)(void))inbox_recv, METH_FASTCALL, NULL},
    {"try_recv", (PyCFunction)inbox_try_recv, METH_NOARGS, NULL},
    {"release", (PyCFunction)inbox_release, METH_NOARGS, NULL},
    {"interrupt", (PyCFunction)inbox_interrupt, METH_NOARGS, NULL},
    {0},
};

static PyGetSetDef inbox_properties[] = {
    {"wait_counts", (getter)get_wait_counts, NULL, NULL, NULL},
    {0},
};

static PyType_Slot inbox_slots[] = {
    {Py_tp_doc, "The reading end of one ring or several; see _ring.pyi."},
    {Py_tp_new, inbox_new},
    {Py_tp_dealloc, inbox_dealloc},
    {Py_tp_methods, inbox_methods},
    {Py_tp_getset, inbox_properties},
    {Py_bf_getbuffer, inbox_getbuffer},
    {Py_bf_releasebuffer, inbox_releasebuffer},
    {0, NULL},
};

PyType_Spec inbox_object_spec = {
    .name = "mpspmd._ring.Inbox",
    .basicsize = sizeof(struct inbox_object),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = inbox_slots,
};
