#include "python/inbox_object.h"

#include <unistd.h>

#include "python/arguments.h"
#include "python/fork.h"
#include "python/module.h"
#include "python/page_object.h"
#include "python/raise.h"
#include "python/recorder_object.h"
#include "python/ring_object.h"

bool inbox_is_readable(struct inbox_object *inbox) {
    if (inbox->interrupts != inbox->interrupts_seen)
        return true;
    for (Py_ssize_t i = 0; i < inbox->n_rings; i++)
        if (!inbox->ended[i] && ring_readable(&inbox->readers[i]))
            return true;
    return false;
}

static bool is_readable(void *condition) {
    return inbox_is_readable(condition);
}

static bool make_room(struct inbox_object *self, Py_ssize_t n) {
    self->readers = PyMem_Calloc((size_t)n, sizeof *self->readers);
    self->messages = PyMem_Calloc((size_t)n, sizeof *self->messages);
    self->buffers = PyMem_Calloc((size_t)n, sizeof *self->buffers);
    self->ended = PyMem_Calloc((size_t)n, sizeof *self->ended);
    if (self->readers && self->messages && self->buffers && self->ended)
        return true;
    PyErr_NoMemory();
    return false;
}

static bool attach_all(struct inbox_object *self, PyObject *rings, unsigned slot) {
    struct module_state *state = module_state_of((PyObject *)self);
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(rings); i++) {
        PyObject *item = PyTuple_GET_ITEM(rings, i);
        if (!PyObject_TypeCheck(item, state->ring_type))
            return PyErr_Format(PyExc_TypeError, "Inbox(rings: tuple[Ring, ...], slot: int)");
        if (!fork_check(((struct ring_object *)item)->generation))
            return false;
        struct ring *ring = &((struct ring_object *)item)->ring;
        struct bell *first = ((struct ring_object *)PyTuple_GET_ITEM(rings, 0))->ring.data_bell;
        if (ring->data_bell != first)
            return PyErr_Format(PyExc_ValueError,
                                "the rings of an inbox must share their data bell");
        if (!ring_attach(&self->readers[i], ring, slot, (uint32_t)getpid()))
            return PyErr_Format(state->channel_error,
                                "slot %u of ring %zd is taken, or dead, or beyond its %u readers",
                                slot, i, ring->n_readers);
        self->n_rings = i + 1;
    }
    return true;
}

static void set_waiter(struct inbox_object *self, unsigned slot) {
    self->waiter = (struct waiter){
        .bell = self->readers[0].ring->data_bell,
        .bit = UINT64_C(1) << slot,
        .ready = is_readable,
        .condition = self,
        .counts = waits_counts(self->line, self->own_counts),
    };
}

static PyObject *inbox_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"rings", "slot", "line", "page", "wait", "track", NULL};
    PyObject *rings, *line = Py_None, *page = Py_None, *track_object = Py_None;
    struct track *track;
    uint32_t slot;
    int wait = WAIT_AUTO;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!O&|OOiO:Inbox", names, &PyTuple_Type, &rings,
                                     argument_uint32, &slot, &line, &page, &wait, &track_object) ||
        !argument_is_strategy(wait))
        return NULL;
    struct module_state *state = PyType_GetModuleState(type);
    if (PyTuple_GET_SIZE(rings) < 1 ||
        (line != Py_None && !PyObject_TypeCheck(line, state->line_type)) ||
        (page != Py_None && !PyObject_TypeCheck(page, state->page_type)))
        return PyErr_Format(PyExc_TypeError,
                            "Inbox(rings: tuple[Ring, ...], slot: int, line: "
                            "StatusLine | None, page: StatusPage | None, wait: int)");
    if (!track_argument(state->track_type, track_object, &track) ||
        (line != Py_None && !page_check_writable(((struct line_object *)line)->owner)) ||
        (page != Py_None && !page_check_writable((struct page_object *)page)))
        return NULL;
    struct inbox_object *self = (struct inbox_object *)PyType_GenericAlloc(type, 0);
    if (!self)
        return NULL;
    self->current = -1;
    self->generation = fork_generation;
    self->rings = Py_NewRef(rings);
    self->line_owner = Py_NewRef(line);
    self->track = track;
    self->track_owner = Py_NewRef(track_object);
    self->line = line == Py_None ? NULL : ((struct line_object *)line)->line;
    if (!make_room(self, PyTuple_GET_SIZE(rings)) || !attach_all(self, rings, slot)) {
        for (Py_ssize_t i = 0; i < self->n_rings; i++)
            ring_detach(&self->readers[i]);
        Py_DECREF(self);
        return NULL;
    }
    set_waiter(self, slot);
    self->page_owner = Py_NewRef(page);
    struct status *run = page == Py_None ? NULL : &((struct page_object *)page)->status;
    strategy_init(&self->strategy, (enum wait_strategy)wait, run ? &run->shared->spinners : NULL,
                  run ? run->n_ranks : 0);
    return (PyObject *)self;
}

static void inbox_dealloc(PyObject *object) {
    struct inbox_object *self = (struct inbox_object *)object;
    for (Py_ssize_t i = 0; i < self->n_rings; i++)
        Py_XDECREF(self->buffers[i]);
    PyMem_Free(self->readers);
    PyMem_Free(self->messages);
    PyMem_Free(self->buffers);
    PyMem_Free(self->ended);
    Py_XDECREF(self->rings);
    Py_XDECREF(self->line_owner);
    Py_XDECREF(self->page_owner);
    Py_XDECREF(self->track_owner);
    extension_free(object);
}

static bool enter(struct inbox_object *self) {
    if (!fork_check(self->generation))
        return false;
    if (self->busy)
        raise_busy("inbox", "reads");
    else if (self->current >= 0)
        PyErr_SetString(PyExc_RuntimeError, "release() the last record before reading the next");
    else
        self->busy = true;
    return !PyErr_Occurred();
}

bool inbox_take_interrupt(struct inbox_object *self) {
    uint32_t interrupts = self->interrupts;
    bool interrupted = interrupts != self->interrupts_seen;
    self->interrupts_seen = interrupts;
    return interrupted;
}

/* Tells the strategy when the message that received_poll() has just found was sent. */
static void learn(struct inbox_object *self, const struct waiting *waiting) {
    /* received_poll() has taken it from the ring before `next`. */
    Py_ssize_t i = self->next > 0 ? self->next - 1 : self->n_rings - 1;
    const _Atomic uint64_t *published_ns = &self->readers[i].ring->shared->published_ns;
    /* If the message came at once, the writer may be writing this line now, and reading it would
     * take as long as the wait did. */
    uint64_t sent_ns =
        waiting->at_once ? 0 : atomic_load_explicit(published_ns, memory_order_relaxed);
    strategy_learn(&self->strategy, waiting, &self->waiter, sent_ns);
}

PyObject *inbox_receive(struct inbox_object *self, uint64_t deadline_ns, uint64_t key) {
    struct waiting waiting = {.key = key};
    if (!enter(self))
        return NULL;
    int ready = 1;
    PyObject *result = received_poll(self);
    while (!result && !PyErr_Occurred() && ready > 0) {
        if (inbox_take_interrupt(self)) {
            self->busy = false;
            Py_RETURN_NONE;
        }
        ready = waits_run(&self->strategy, &waiting, &self->waiter, deadline_ns);
        if (ready >= 0)
            result = received_poll(self);
    }
    if (result && waiting.began)
        learn(self, &waiting);
    if (!result && !PyErr_Occurred())
        PyErr_SetString(PyExc_TimeoutError, "nothing came before the deadline");
    self->busy = false;
    return result;
}

/* recv(timeout=None, key=0) */
static PyObject *inbox_recv(struct inbox_object *self, PyObject *const *args, Py_ssize_t n_args) {
    uint64_t deadline_ns = argument_deadline(n_args > 0 ? args[0] : NULL);
    uint64_t key = n_args > 1 ? PyLong_AsUnsignedLongLongMask(args[1]) : 0;
    return PyErr_Occurred() ? NULL : inbox_receive(self, deadline_ns, key);
}

PyObject *inbox_poll(struct inbox_object *self) {
    if (!enter(self))
        return NULL;
    PyObject *result = received_poll(self);
    self->busy = false;
    return result;
}

static PyObject *inbox_try_recv(struct inbox_object *self, PyObject *Py_UNUSED(none)) {
    PyObject *result = inbox_poll(self);
    return result || PyErr_Occurred() ? result : Py_NewRef(Py_None);
}

bool inbox_release_record(struct inbox_object *self) {
    if (self->current < 0)
        return true;
    if (self->exports > 0)
        PyErr_Format(PyExc_BufferError,
                     "%zd views of the record in the ring are still held: copy what you keep",
                     self->exports);
    if (self->exports > 0 || !fork_check(self->generation))
        return false;
    ring_release(&self->readers[self->current], &self->messages[self->current].record);
    self->current = -1;
    return true;
}

static PyObject *inbox_release(struct inbox_object *self, PyObject *Py_UNUSED(none)) {
    return inbox_release_record(self) ? Py_NewRef(Py_None) : NULL;
}

static PyObject *inbox_interrupt(struct inbox_object *self, PyObject *Py_UNUSED(none)) {
    atomic_fetch_add(&self->interrupts, 1);
    if (!fork_check(self->generation))
        return NULL;
    bell_notify(self->waiter.bell, UINT64_MAX);
    Py_RETURN_NONE;
}

static PyObject *get_wait_counts(struct inbox_object *self, void *Py_UNUSED(closure)) {
    return fork_check(self->generation) ? waits_counts_dict(&self->waiter.counts) : NULL;
}

static int inbox_getbuffer(struct inbox_object *self, Py_buffer *view, int flags) {
    view->obj = NULL;
    if (!fork_check(self->generation))
        return -1;
    if (self->current < 0) {
        PyErr_SetString(PyExc_BufferError, "no record is being read in place");
        return -1;
    }
    const struct record *record = &self->messages[self->current].record;
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
