/* Tap: reads the bytes of one ring or several by their positions, to copy them into the rings of
 * another machine. One thread at a time, except interrupt(). */
#include "python/arguments.h"
#include "python/fork.h"
#include "python/listener.h"
#include "python/module.h"
#include "python/page_object.h"
#include "python/raise.h"

struct tap_object {
    PyObject_HEAD
    struct listener listener;
    uint64_t *positions; /* what wait() has been told that its caller has */
};

/* The ring whose bytes go beyond what the caller has, or which has ended; or -1. */
static Py_ssize_t find_readable(const struct tap_object *self) {
    for (Py_ssize_t i = 0; i < self->listener.n; i++) {
        const struct ring *ring = self->listener.readers[i].ring;
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
    return self->listener.interrupts != self->listener.interrupts_seen || find_readable(self) >= 0;
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
    struct tap_object *self = (struct tap_object *)PyType_GenericAlloc(type, 0);
    if (!self)
        return NULL;
    self->positions = PyMem_Calloc((size_t)PyTuple_GET_SIZE(rings), sizeof *self->positions);
    if (!(self->positions || PyErr_NoMemory()) ||
        !listener_open(&self->listener, (PyObject *)self, rings, slots, page, wait, is_readable,
                       NULL))
        Py_CLEAR(self);
    return (PyObject *)self;
}

static void tap_dealloc(PyObject *object) {
    struct tap_object *self = (struct tap_object *)object;
    listener_close(&self->listener);
    PyMem_Free(self->positions);
    extension_free(object);
}

static bool take_positions(struct tap_object *self, PyObject *positions) {
    if (!PyTuple_Check(positions) || PyTuple_GET_SIZE(positions) != self->listener.n)
        return PyErr_Format(PyExc_ValueError, "positions: must be a tuple of %zd",
                            self->listener.n);
    for (Py_ssize_t i = 0; i < self->listener.n; i++) {
        PyObject *item = PyTuple_GET_ITEM(positions, i);
        self->positions[i] = UINT64_MAX;
        if (item != Py_None && !argument_uint64(item, &self->positions[i]))
            return false;
    }
    return true;
}

/* wait(positions, timeout) */
static PyObject *tap_wait(struct tap_object *self, PyObject *const *args, Py_ssize_t n_args) {
    struct listener *listener = &self->listener;
    if (n_args != 2)
        return PyErr_Format(PyExc_TypeError, "wait(positions, timeout)");
    uint64_t deadline_ns = argument_deadline(args[1]);
    if (PyErr_Occurred() || !fork_check(listener->generation))
        return NULL;
    if (listener->busy)
        return raise_busy("tap", "waits");
    if (!take_positions(self, args[0]))
        return NULL;
    struct waiting waiting = {0};
    listener->busy = true;
    int ready = is_readable(self) ? 1 : 0;
    if (!ready)
        ready = waits_run(&listener->strategy, &waiting, &listener->waiter, deadline_ns);
    Py_ssize_t i = find_readable(self);
    if (waiting.began && ready > 0 && i >= 0)
        strategy_learn(&listener->strategy, &waiting, &listener->waiter,
                       atomic_load_explicit(&listener->readers[i].ring->shared->published_ns,
                                            memory_order_relaxed));
    listener_take_interrupt(listener);
    listener->busy = false;
    return ready < 0 ? NULL : PyBool_FromLong(ready);
}

/* The reader, if `position` lies between its head and the tail; else NULL with an exception set. */
static struct ring_reader *reader_at(struct tap_object *self, unsigned index, uint64_t position,
                                     uint64_t *tail) {
    if (!fork_check(self->listener.generation))
        return NULL;
    if ((Py_ssize_t)index >= self->listener.n) {
        PyErr_Format(PyExc_ValueError, "ring %u: the tap has %zd", index, self->listener.n);
        return NULL;
    }
    struct ring_reader *reader = &self->listener.readers[index];
    *tail = atomic_load_explicit(&reader->ring->shared->tail, memory_order_acquire);
    if (position - reader->head <= *tail - reader->head &&
        *tail - reader->head <= reader->ring->capacity)
        return reader;
    PyErr_Format(PyExc_ValueError, "position %llu of ring %u: must be from %llu to %llu",
                 (unsigned long long)position, index, (unsigned long long)reader->head,
                 (unsigned long long)*tail);
    return NULL;
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
    return listener_interrupt(&self->listener);
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
