#include "python/listener.h"

#include <unistd.h>

#include "python/arguments.h"
#include "python/fork.h"
#include "python/module.h"
#include "python/page_object.h"
#include "python/ring_object.h"

static bool attach(struct listener *listener, const struct module_state *state, PyObject *object,
                   PyObject *slot_object) {
    uint32_t slot;
    if (!PyObject_TypeCheck(object, state->ring_type))
        return PyErr_Format(PyExc_TypeError, "rings: a tuple of Ring");
    struct ring *ring = &((struct ring_object *)object)->ring;
    if (!argument_uint32(slot_object, &slot) ||
        !fork_check(((struct ring_object *)object)->generation))
        return false;
    if (listener->n > 0 && ring->data_bell != listener->readers[0].ring->data_bell)
        return PyErr_Format(PyExc_ValueError, "the rings must share their data bell");
    if (!ring_attach(&listener->readers[listener->n], ring, slot, (uint32_t)getpid()))
        return PyErr_Format(state->channel_error,
                            "slot %u of ring %zd is taken, or dead, or beyond its %u readers", slot,
                            listener->n, ring->n_readers);
    listener->n++;
    return true;
}

static bool attach_all(struct listener *listener, PyObject *self, PyObject *slots) {
    Py_ssize_t n = PyTuple_GET_SIZE(listener->rings);
    if (n < 1)
        return PyErr_Format(PyExc_TypeError, "rings: a tuple of at least one Ring");
    if (PyTuple_Check(slots) && PyTuple_GET_SIZE(slots) != n)
        return PyErr_Format(PyExc_ValueError, "slots: %zd rings need one for each", n);
    listener->readers = PyMem_Calloc((size_t)n, sizeof *listener->readers);
    if (!listener->readers)
        return PyErr_NoMemory();
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *slot = PyTuple_Check(slots) ? PyTuple_GET_ITEM(slots, i) : slots;
        if (attach(listener, module_state_of(self), PyTuple_GET_ITEM(listener->rings, i), slot))
            continue;
        while (listener->n > 0)
            ring_detach(&listener->readers[--listener->n]);
        return false;
    }
    return true;
}

bool listener_open(struct listener *listener, PyObject *self, PyObject *rings, PyObject *slots,
                   PyObject *page, int wait, bool (*ready)(void *self),
                   _Atomic uint64_t *counters) {
    const struct page_object *page_object = page == Py_None ? NULL : (struct page_object *)page;
    listener->generation = fork_generation;
    listener->rings = Py_NewRef(rings);
    listener->page = Py_NewRef(page);
    if (!attach_all(listener, self, slots))
        return false;
    const struct ring_reader *first = &listener->readers[0];
    listener->waiter = (struct waiter){.bell = first->ring->data_bell,
                                       .bit = UINT64_C(1) << first->slot,
                                       .ready = ready,
                                       .condition = self,
                                       .counters = counters ? counters : listener->own_counters};
    strategy_init(&listener->strategy, (enum wait_strategy)wait,
                  page_object ? &page_object->status.shared->spinners : NULL,
                  page_object ? page_object->status.n_ranks : 0);
    return true;
}

void listener_close(struct listener *listener) {
    PyMem_Free(listener->readers);
    Py_XDECREF(listener->rings);
    Py_XDECREF(listener->page);
}

PyObject *listener_interrupt(struct listener *listener) {
    atomic_fetch_add(&listener->interrupts, 1);
    if (!fork_check(listener->generation))
        return NULL;
    bell_notify(listener->waiter.bell, UINT64_MAX);
    Py_RETURN_NONE;
}

bool listener_take_interrupt(struct listener *listener) {
    uint32_t interrupts = listener->interrupts;
    bool interrupted = interrupts != listener->interrupts_seen;
    listener->interrupts_seen = interrupts;
    return interrupted;
}
