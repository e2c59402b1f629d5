#include "python/call_object.h"

#include <stddef.h>

#include "ring/clock.h"

struct call_object *call_new(struct module_state *state, PyTypeObject *type, PyObject *method,
                             PyObject *ranks, PyObject *deadline, Py_ssize_t n_ranks) {
    Py_hash_t hash = PyObject_Hash(method);
    if (hash == -1 && PyErr_Occurred())
        return NULL;
    PyObject *replies = PyList_New(n_ranks);
    if (!replies)
        return NULL;
    for (Py_ssize_t i = 0; i < n_ranks; i++)
        PyList_SET_ITEM(replies, i, Py_NewRef(state->no_reply));
    struct call_object *self = (struct call_object *)PyType_GenericAlloc(type, 0);
    if (!self) {
        Py_DECREF(replies);
        return NULL;
    }
    self->method = Py_NewRef(method);
    self->ranks = Py_NewRef(ranks);
    self->deadline = Py_NewRef(deadline);
    self->replies = replies;
    self->key = (unsigned long long)hash;
    bool all = PyUnicode_Check(ranks) && PyUnicode_CompareWithASCIIString(ranks, "all") == 0;
    self->asked = self->missing = all ? n_ranks : 1;
    return self;
}

void call_set_size(struct call_object *self, size_t bytes) {
    unsigned long long bits = bytes > 0 ? 64 - (unsigned long long)__builtin_clzll(bytes) : 0;
    self->key += bits << 8;
}

/* Call(step, method, ranks, n_ranks, deadline, bytes) */
static PyObject *call_make(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"step", "method", "ranks", "n_ranks", "deadline", "bytes", NULL};
    PyObject *step, *method, *ranks, *deadline;
    Py_ssize_t n_ranks, bytes;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!UOnOn:Call", names, &PyLong_Type, &step,
                                     &method, &ranks, &n_ranks, &deadline, &bytes))
        return NULL;
    if (n_ranks < 1 || bytes < 0)
        return PyErr_Format(PyExc_ValueError, "a call of %zd bytes to %zd ranks", bytes, n_ranks);
    struct module_state *state = module_state_of_type(type);
    struct call_object *self =
        state ? call_new(state, type, method, ranks, deadline, n_ranks) : NULL;
    if (!self)
        return NULL;
    self->step = Py_NewRef(step);
    self->began = (double)monotonic_ns() / 1e9;
    call_set_size(self, (size_t)bytes);
    return (PyObject *)self;
}

#define MEMBER(name, type, flags) {#name, type, offsetof(struct call_object, name), flags, NULL}

static PyMemberDef call_members[] = {
    MEMBER(step, T_OBJECT, READONLY),
    MEMBER(method, T_OBJECT, READONLY),
    MEMBER(ranks, T_OBJECT, READONLY),
    MEMBER(deadline, T_OBJECT, READONLY),
    MEMBER(replies, T_OBJECT, READONLY),
    MEMBER(error, T_OBJECT, 0),
    MEMBER(errors, T_OBJECT, READONLY),
    MEMBER(kept_future, T_OBJECT, 0), /* NULL or None: it isn't to be told */
    MEMBER(later, T_OBJECT, 0),
    MEMBER(closes, T_OBJECT, 0),
    MEMBER(reply_context, T_OBJECT, 0),
    MEMBER(began, T_DOUBLE, READONLY),
    MEMBER(asked, T_PYSSIZET, READONLY),
    MEMBER(missing, T_PYSSIZET, 0),
    MEMBER(key, T_ULONGLONG, READONLY),
    MEMBER(done, T_BOOL, 0),
    MEMBER(keeps_late, T_BOOL, 0),
    {0},
};

enum {
    FIRST_OBJECT = offsetof(struct call_object, step) / sizeof(PyObject *),
    AFTER_OBJECTS = offsetof(struct call_object, began) / sizeof(PyObject *),
};

static int call_traverse(PyObject *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    for (size_t i = FIRST_OBJECT; i < AFTER_OBJECTS; i++)
        Py_VISIT(((PyObject **)self)[i]);
    return 0;
}

static int call_clear(PyObject *self) {
    for (size_t i = FIRST_OBJECT; i < AFTER_OBJECTS; i++)
        Py_CLEAR(((PyObject **)self)[i]);
    return 0;
}

static void call_dealloc(PyObject *object) {
    PyObject_GC_UnTrack(object);
    call_clear(object);
    extension_free(object);
}

/* note_error(rank, error): several threads may note errors of one call at the same time. */
static PyObject *call_note_error(struct call_object *self, PyObject *args) {
    if (!PyTuple_Check(args) || PyTuple_GET_SIZE(args) != 2)
        return PyErr_Format(PyExc_TypeError, "note_error(rank, error)");
    PyObject *errors = self->errors ? NULL : PyList_New(0);
    if (!self->errors && !errors)
        return NULL;
    if (!self->errors) /* the garbage collector may have run a thread that has made the list */
        self->errors = errors;
    else
        Py_XDECREF(errors);
    if (PyList_Append(self->errors, args) != 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *call_outcome(PyObject *object, PyObject *Py_UNUSED(none)) {
    struct call_object *self = (struct call_object *)object;
    if (self->error && self->error != Py_None)
        return PyObject_CallMethod(object, "raise_error", NULL);
    if (!self->replies || !self->ranks) /* the garbage collector has cleared it */
        Py_RETURN_NONE;
    if (!PyLong_Check(self->ranks))
        return Py_NewRef(self->replies);
    Py_ssize_t rank = PyLong_AsSsize_t(self->ranks);
    return PyErr_Occurred() ? NULL : Py_XNewRef(PyList_GetItem(self->replies, rank));
}

static PyMethodDef call_methods[] = {
    {"outcome", call_outcome, METH_NOARGS, NULL},
    {"note_error", (PyCFunction)call_note_error, METH_VARARGS, NULL},
    {0},
};

static PyType_Slot call_slots[] = {
    {Py_tp_doc, "A request whose replies are still coming; see _ring.pyi."},
    {Py_tp_new, call_make},
    {Py_tp_traverse, call_traverse},
    {Py_tp_clear, call_clear},
    {Py_tp_dealloc, call_dealloc},
    {Py_tp_methods, call_methods},
    {Py_tp_members, call_members},
    {0, NULL},
};

PyType_Spec call_object_spec = {
    .name = "mpspmd._ring.Call",
    .basicsize = sizeof(struct call_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = call_slots,
};
