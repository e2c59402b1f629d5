#include "python/ring_object.h"

#include <errno.h>
#include <stddef.h>

#include "python/arguments.h"
#include "python/fork.h"
#include "python/module.h"
#include "python/page_object.h"
#include "python/raise.h"
#include "ring/ring_map.h"

/* The bell in a StatusPage argument, or NULL for None; false with an exception otherwise. */
static bool bell_of(struct module_state *state, PyObject *page, struct bell **bell) {
    struct page_object *owner;
    if (!argument_optional(page, state->page_type, &owner))
        return false;
    *bell = owner ? &owner->status.shared->engine_bell : NULL;
    return !owner || page_check_writable(owner);
}

static PyObject *ring_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"fd", "data_bell", "space_bell", NULL};
    int fd;
    PyObject *data_page = Py_None, *space_page = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "i|OO:Ring", names, &fd, &data_page,
                                     &space_page))
        return NULL;
    struct module_state *state = PyType_GetModuleState(type);
    struct bell *data_bell, *space_bell;
    if (!bell_of(state, data_page, &data_bell) || !bell_of(state, space_page, &space_bell))
        return NULL;
    struct ring_object *self = (struct ring_object *)PyType_GenericAlloc(type, 0);
    if (!self)
        return NULL;
    self->generation = fork_generation;
    self->bells = PyTuple_Pack(2, data_page, space_page);
    int error = ring_map(&self->ring, fd, data_bell, space_bell);
    if (error || !self->bells) {
        Py_DECREF(self);
        return error ? raise_segment(error, fd, "ring") : NULL;
    }
    return (PyObject *)self;
}

static void ring_dealloc(PyObject *object) {
    struct ring_object *self = (struct ring_object *)object;
    if (self->generation == fork_generation)
        ring_unmap(&self->ring);
    Py_XDECREF(self->bells);
    extension_free(object);
}

static PyObject *raise_shape(uint64_t capacity, uint32_t n_readers) {
    return PyErr_Format(PyExc_ValueError,
                        "a ring of %llu bytes for %u readers: the capacity must be a power of "
                        "two from a page to 2 GiB, the readers 1 to %d",
                        (unsigned long long)capacity, (unsigned)n_readers, RING_MAX_READERS);
}

static PyObject *ring_format_segment(PyObject *Py_UNUSED(type), PyObject *args) {
    int fd;
    uint64_t capacity;
    uint32_t n_readers;
    if (!PyArg_ParseTuple(args, "iO&O&:format", &fd, argument_uint64, &capacity, argument_uint32,
                          &n_readers))
        return NULL;
    int error = ring_format(fd, capacity, n_readers);
    if (error == EINVAL)
        return raise_shape(capacity, n_readers);
    if (error)
        return raise_segment(error, fd, "ring");
    Py_RETURN_NONE;
}

static PyObject *ring_segment_size(PyObject *Py_UNUSED(type), PyObject *args) {
    uint64_t capacity;
    uint32_t n_readers;
    if (!PyArg_ParseTuple(args, "O&O&:segment_bytes", argument_uint64, &capacity, argument_uint32,
                          &n_readers))
        return NULL;
    if (!ring_shape_is_valid(capacity, n_readers))
        return raise_shape(capacity, n_readers);
    return PyLong_FromSize_t(ring_segment_bytes(capacity, n_readers));
}

static PyObject *ring_close_method(struct ring_object *self, PyObject *Py_UNUSED(none)) {
    if (!fork_check(self->generation))
        return NULL;
    ring_close(&self->ring);
    Py_RETURN_NONE;
}

static PyObject *ring_poison_method(struct ring_object *self, PyObject *args) {
    uint16_t code;
    int rank;
    if (!PyArg_ParseTuple(args, "O&i:poison", argument_uint16, &code, &rank) ||
        !fork_check(self->generation))
        return NULL;
    ring_poison(&self->ring, code, rank);
    Py_RETURN_NONE;
}

static PyObject *ring_mark_dead_method(struct ring_object *self, PyObject *slot_object) {
    unsigned long slot = PyLong_AsUnsignedLong(slot_object);
    if (PyErr_Occurred() || !fork_check(self->generation))
        return NULL;
    if (slot >= self->ring.n_readers)
        return PyErr_Format(PyExc_ValueError, "slot %lu: the ring has %u readers", slot,
                            self->ring.n_readers);
    ring_mark_dead(&self->ring, (uint32_t)slot);
    Py_RETURN_NONE;
}

static PyObject *get_tail(struct ring_object *self, void *Py_UNUSED(closure)) {
    if (!fork_check(self->generation))
        return NULL;
    return PyLong_FromUnsignedLongLong(atomic_load(&self->ring.shared->tail));
}

static PyObject *heads_tuple(const uint64_t *heads, uint32_t n) {
    PyObject *tuple = PyTuple_New(n);
    for (uint32_t slot = 0; tuple && slot < n; slot++) {
        PyObject *head = PyLong_FromUnsignedLongLong(heads[slot]);
        if (head)
            PyTuple_SET_ITEM(tuple, slot, head);
        else
            Py_CLEAR(tuple);
    }
    return tuple;
}

static PyObject *get_heads(struct ring_object *self, void *Py_UNUSED(closure)) {
    uint64_t heads[RING_MAX_READERS];
    if (!fork_check(self->generation))
        return NULL;
    for (uint32_t slot = 0; slot < self->ring.n_readers; slot++)
        heads[slot] = atomic_load(&self->ring.shared->readers[slot].head);
    return heads_tuple(heads, self->ring.n_readers);
}

static PyObject *get_state(struct ring_object *self, void *Py_UNUSED(closure)) {
    static const char *const names[] = {"open", "closed", "poisoned"};
    if (!fork_check(self->generation))
        return NULL;
    uint64_t word = ring_state_word(&self->ring);
    if (STATE_OF(word) > STATE_POISONED)
        return PyErr_Format(module_state_of((PyObject *)self)->channel_corrupt,
                            "the ring's state word is %llu", (unsigned long long)word);
    return Py_BuildValue("(sii)", names[STATE_OF(word)], (int)STATE_CODE(word),
                         (int)STATE_RANK(word));
}

/* look(fd) -> (capacity, tail, heads, published). Read, not mapped: the descriptor may be
 * read-only. */
static PyObject *ring_look_method(PyObject *Py_UNUSED(type), PyObject *args) {
    uint64_t capacity, tail, heads[RING_MAX_READERS], published_ns;
    uint32_t n_readers;
    int fd;
    if (!PyArg_ParseTuple(args, "i:look", &fd))
        return NULL;
    int error = ring_look(fd, &capacity, &n_readers, &tail, heads, &published_ns);
    if (error)
        return raise_segment(error, fd, "ring");
    PyObject *tuple = heads_tuple(heads, n_readers);
    return tuple ? Py_BuildValue("(KKNd)", (unsigned long long)capacity, (unsigned long long)tail,
                                 tuple, (double)published_ns / 1e9)
                 : NULL;
}

static PyMethodDef ring_methods[] = {
    {"look", (PyCFunction)ring_look_method, METH_VARARGS | METH_STATIC, NULL},
    {"format", (PyCFunction)ring_format_segment, METH_VARARGS | METH_STATIC, NULL},
    {"segment_bytes", (PyCFunction)ring_segment_size, METH_VARARGS | METH_STATIC, NULL},
    {"close", (PyCFunction)ring_close_method, METH_NOARGS, NULL},
    {"poison", (PyCFunction)ring_poison_method, METH_VARARGS, NULL},
    {"mark_dead", (PyCFunction)ring_mark_dead_method, METH_O, NULL},
    {0},
};

static PyMemberDef ring_members[] = {
    {"capacity", T_ULONGLONG, offsetof(struct ring_object, ring.capacity), READONLY, NULL},
    {"n_readers", T_UINT, offsetof(struct ring_object, ring.n_readers), READONLY, NULL},
    {0},
};

static PyGetSetDef ring_properties[] = {
    {"tail", (getter)get_tail, NULL, NULL, NULL},
    {"heads", (getter)get_heads, NULL, NULL, NULL},
    {"state", (getter)get_state, NULL, NULL, NULL},
    {0},
};

static PyType_Slot ring_slots[] = {
    {Py_tp_doc, "One process's mapping of a ring; see _ring.pyi."},
    {Py_tp_new, ring_new},
    {Py_tp_dealloc, ring_dealloc},
    {Py_tp_methods, ring_methods},
    {Py_tp_members, ring_members},
    {Py_tp_getset, ring_properties},
    {0, NULL},
};

PyType_Spec ring_object_spec = {
    .name = "mpspmd._ring.Ring",
    .basicsize = sizeof(struct ring_object),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = ring_slots,
};
