/* Tap: reads the bytes of one ring or several by their positions, to copy them into the rings of
 * another machine. One thread at a time, except interrupt(). */
#include <unistd.h>

#include "python/arguments.h"
#include "python/fork.h"
#include "python/module.h"
#include "python/page_object.h"
#include "python/raise.h"
#include "python/ring_object.h"
#include "python/waits.h"
#include "ring/reader.h"

struct tap_object {
    PyObject_HEAD
    Py_ssize_t n_readers;
    struct ring_reader *readers;
    uint64_t *positions; /* what wait() has been told that its caller has */
    PyObject *rings, *page_owner;
    bool busy; /* a thread waits */
    unsigned generation;
    _Atomic uint32_t interrupts; /* interrupt() calls, */
    uint32_t interrupts_seen;    /* and how many of them wait() has answered */
    _Atomic uint64_t counts[N_WAIT_COUNTS];
    struct waiter waiter;
    struct strategy strategy;
};

/* The ring whose bytes go beyond what the caller has, or which has ended; or -1. */
static Py_ssize_t find_readable(const struct tap_object *self) {
    for (Py_ssize_t i = 0; i < self->n_readers; i++) {
        const struct ring *ring = self->readers[i].ring;
        if (self->positions[i] == UINT64_MAX)
            continue;
        /* Sequentially consistent: a sleeping reader's second check runs this. */
        if (atomic_load_explicit(&ring->shared->tail, memory_order_seq_cst) != self->positions[i] ||
            STATE_OF(ring_state_word(ring)) != STATE_OPEN)
            return i;
    }
    return -1;
}

static bool is_readable(void *condition) {
    struct tap_object *self = condition;
    return self->interrupts != self->interrupts_seen || find_readable(self) >= 0;
}

static bool attach(struct tap_object *self, PyObject *rings, PyObject *slots) {
    struct module_state *state = module_state_of((PyObject *)self);
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(rings); i++) {
        PyObject *item = PyTuple_GET_ITEM(rings, i);
        uint32_t slot;
        if (!PyObject_TypeCheck(item, state->ring_type))
            return PyErr_Format(PyExc_TypeError,
                                "Tap(rings: tuple[Ring, ...], slots: tuple[int, ...])");
        if (!argument_uint32(PyTuple_GET_ITEM(slots, i), &slot) ||
            !fork_check(((struct ring_object *)item)->generation))
            return false;
        struct ring *ring = &((struct ring_object *)item)->ring;
        if (ring->data_bell != ((struct ring_object *)PyTuple_GET_ITEM(rings, 0))->ring.data_bell)
            return PyErr_Format(PyExc_ValueError, "the rings of a tap must share their data bell");
        if (!ring_attach(&self->readers[i], ring, slot, (uint32_t)getpid()))
            return PyErr_Format(state->channel_error,
                                "slot %u of ring %zd is taken, or dead, or beyond "
                                "its %u readers",
                                slot, i, ring->n_readers);
        self->n_readers = i + 1;
    }
    return true;
}

static PyObject *tap_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"rings", "slots", "page", "wait", NULL};
    PyObject *rings, *slots, *page;
    int wait = WAIT_AUTO;
    struct module_state *state = PyType_GetModuleState(type);
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!O!O!|i:Tap", names, &PyTuple_Type, &rings,
                                     &PyTuple_Type, &slots, state->page_type, &page, &wait) ||
        !argument_is_strategy(wait) || !page_check_writable((struct page_object *)page))
        return NULL;
    Py_ssize_t n = PyTuple_GET_SIZE(rings);
    if (n < 1 || PyTuple_GET_SIZE(slots) != n)
        return PyErr_Format(PyExc_ValueError,
                            "a tap needs one slot for each ring, and at least one");
    struct tap_object *self = (struct tap_object *)PyType_GenericAlloc(type, 0);
    if (!self)
        return NULL;
    self->generation = fork_generation;
    self->rings = Py_NewRef(rings);
    self->page_owner = Py_NewRef(page);
    self->readers = PyMem_Calloc((size_t)n, sizeof *self->readers);
    self->positions = PyMem_Calloc((size_t)n, sizeof *self->positions);
    if (!self->readers || !self->positions || !attach(self, rings, slots)) {
        for (Py_ssize_t i = 0; i < self->n_readers; i++)
            ring_detach(&self->readers[i]);
        if (!PyErr_Occurred())
            PyErr_NoMemory();
        Py_DECREF(self);
        return NULL;
    }
    self->waiter = (struct waiter){.bell = self->readers[0].ring->data_bell,
                                   .bit = UINT64_C(1) << self->readers[0].slot,
                                   .ready = is_readable,
                                   .condition = self,
                                   .counts = waits_counts(NULL, self->counts)};
    struct status *run = &((struct page_object *)page)->status;
    strategy_init(&self->strategy, (enum wait_strategy)wait, &run->shared->spinners, run->n_ranks);
    return (PyObject *)self;
}

static void tap_dealloc(PyObject *object) {
    struct tap_object *self = (struct tap_object *)object;
    PyMem_Free(self->readers);
    PyMem_Free(self->positions);
    Py_XDECREF(self->rings);
    Py_XDECREF(self->page_owner);
    extension_free(object);
}

static bool take_positions(struct tap_object *self, PyObject *positions) {
    if (!PyTuple_Check(positions) || PyTuple_GET_SIZE(positions) != self->n_readers)
        return PyErr_Format(PyExc_ValueError, "positions: must be a tuple of %zd", self->n_readers);
    for (Py_ssize_t i = 0; i < self->n_readers; i++) {
        PyObject *item = PyTuple_GET_ITEM(positions, i);
        self->positions[i] = UINT64_MAX;
        if (item != Py_None && !argument_uint64(item, &self->positions[i]))
            return false;
    }
    return true;
}

/* wait(positions, timeout) */
static PyObject *tap_wait(struct tap_object *self, PyObject *const *args, Py_ssize_t n_args) {
    if (n_args != 2)
        return PyErr_Format(PyExc_TypeError, "wait(positions, timeout)");
    uint64_t deadline_ns = argument_deadline(args[1]);
    if (PyErr_Occurred() || !fork_check(self->generation))
        return NULL;
    if (self->busy) {
        raise_busy("tap", "waits");
        return NULL;
    }
    if (!take_positions(self, args[0]))
        return NULL;
    struct waiting waiting = {0};
    self->busy = true;
    int ready = is_readable(self) ? 1 : 0;
    if (!ready)
        ready = waits_run(&self->strategy, &waiting, &self->waiter, deadline_ns);
    Py_ssize_t i = find_readable(self);
    if (waiting.began && ready > 0 && i >= 0)
        strategy_learn(&self->strategy, &waiting, &self->waiter,
                       atomic_load_explicit(&self->readers[i].ring->shared->published_ns,
                                            memory_order_relaxed));
    self->interrupts_seen = self->interrupts;
    self->busy = false;
    return ready < 0 ? NULL : PyBool_FromLong(ready);
}

/* The reader, if `position` lies between its head and the tail; else NULL with an exception set. */
static struct ring_reader *reader_at(struct tap_object *self, unsigned index, uint64_t position,
                                     uint64_t *tail) {
    if (!fork_check(self->generation))
        return NULL;
    if ((Py_ssize_t)index >= self->n_readers)
        return PyErr_Format(PyExc_ValueError, "ring %u: the tap has %zd", index, self->n_readers);
    struct ring_reader *reader = &self->readers[index];
    *tail = atomic_load_explicit(&reader->ring->shared->tail, memory_order_acquire);
    if (position - reader->head <= *tail - reader->head &&
        *tail - reader->head <= reader->ring->capacity)
        return reader;
    return PyErr_Format(PyExc_ValueError, "position %llu of ring %u: must be from %llu to %llu",
                        (unsigned long long)position, index, (unsigned long long)reader->head,
                        (unsigned long long)*tail);
}

/* read(index, position, limit) */
static PyObject *tap_read(struct tap_object *self, PyObject *args) {
    uint32_t index;
    uint64_t position, limit, tail;
    if (!PyArg_ParseTuple(args, "O&O&O&:read", argument_uint32, &index, argument_uint64, &position,
                          argument_uint64, &limit))
        return NULL;
    struct ring_reader *reader = reader_at(self, index, position, &tail);
    if (!reader)
        return NULL;
    uint64_t bytes = tail - position < limit ? tail - position : limit;
    const unsigned char *at = reader->ring->data + (position & (reader->ring->capacity - 1));
    return PyBytes_FromStringAndSize((const char *)at, (Py_ssize_t)bytes);
}

/* release(index, position) */
static PyObject *tap_release(struct tap_object *self, PyObject *args) {
    uint32_t index;
    uint64_t position, tail;
    if (!PyArg_ParseTuple(args, "O&O&:release", argument_uint32, &index, argument_uint64,
                          &position))
        return NULL;
    struct ring_reader *reader = reader_at(self, index, position, &tail);
    if (!reader)
        return NULL;
    ring_release_to(reader, position);
    Py_RETURN_NONE;
}

static PyObject *tap_interrupt(struct tap_object *self, PyObject *Py_UNUSED(none)) {
    atomic_fetch_add(&self->interrupts, 1);
    if (!fork_check(self->generation))
        return NULL;
    bell_notify(self->waiter.bell, UINT64_MAX);
    Py_RETURN_NONE;
}

static PyMethodDef tap_methods[] = {
    {"wait", (PyCFunction)(void (*)(void))tap_wait, METH_FASTCALL, NULL},
    {"read", (PyCFunction)tap_read, METH_VARARGS, NULL},
    {"release", (PyCFunction)tap_release, METH_VARARGS, NULL},
    {"interrupt", (PyCFunction)tap_interrupt, METH_NOARGS, NULL},
    {0},
};

static PyType_Slot tap_slots[] = {
    {Py_tp_doc, "The bytes of one ring or several, by position; see _ring.pyi."},
    {Py_tp_new, tap_new},
    {Py_tp_dealloc, tap_dealloc},
    {Py_tp_methods, tap_methods},
    {0, NULL},
};

PyType_Spec tap_object_spec = {
    .name = "mpspmd._ring.Tap",
    .basicsize = sizeof(struct tap_object),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = tap_slots,
};
