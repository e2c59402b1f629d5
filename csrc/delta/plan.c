#include "delta/plan.h"

enum {
    /* These need the rows of requests, */
    ROW_KINDS = 1 << FIELD_KEYS | 1 << FIELD_COUNTS | 1 << FIELD_PROGRESS | 1 << FIELD_TREND |
                1 << FIELD_GROUPS | 1 << FIELD_TAILS | 1 << FIELD_TOKENS | 1 << FIELD_KEY |
                1 << FIELD_KEYSET | 1 << FIELD_FINISHED,
    /* and these the order of a reply. */
    REPLY_KINDS = 1 << FIELD_ORDER | 1 << FIELD_INDEX,
    /* A message has at most one field of each of these. */
    LONE_KINDS =
        (ROW_KINDS | REPLY_KINDS) & ~(1 << FIELD_KEY | 1 << FIELD_KEYSET | 1 << FIELD_TOKENS),
    NEVER_IN_RECORDS = (ROW_KINDS | REPLY_KINDS) & ~(1 << FIELD_KEY),
};

static bool add_kinds(struct plan_object *self, const struct field *field) {
    uint32_t kinds = 1U << field->kind | (field->record ? field->record->kinds : 0);
    bool lone = !(self->kinds & kinds & LONE_KINDS);
    if (field->kind == FIELD_RECORDS && (kinds & NEVER_IN_RECORDS))
        lone = false;
    self->kinds |= kinds;
    if (!lone || ((self->kinds & ROW_KINDS) && (self->kinds & REPLY_KINDS)))
        PyErr_Format(PyExc_ValueError,
                     "field %R: its kind is for requests and others are for replies, or the "
                     "message would have two of it",
                     field->name);
    return !PyErr_Occurred();
}

bool plan_check(const struct plan_object *plan, bool is_reply) {
    if (!(plan->kinds & (is_reply ? ROW_KINDS : REPLY_KINDS)))
        return true;
    return PyErr_Format(PyExc_ValueError, "this plan is one for %s",
                        is_reply ? "requests" : "replies");
}

static bool add_field(struct plan_object *self, PyTypeObject *plan_type, PyObject *item) {
    PyObject *name, *record;
    int kind;
    if (!PyTuple_Check(item))
        return PyErr_Format(PyExc_TypeError, "a field is a tuple");
    if (!PyArg_ParseTuple(item, "UiO:field", &name, &kind, &record))
        return false;
    bool has_record = PyObject_TypeCheck(record, plan_type), has_members = PyTuple_Check(record);
    bool wants_record = kind == FIELD_RECORD || kind == FIELD_RECORDS;
    if (kind < 0 || kind >= N_FIELD_KINDS || has_record != wants_record ||
        has_members != (kind == FIELD_MEMBER))
        return PyErr_Format(
            PyExc_ValueError,
            "a field is (name, kind, a Plan for RECORD and RECORDS, a tuple for MEMBER)");
    struct field *field = &self->fields[self->n_fields++];
    Py_INCREF(name);
    PyUnicode_InternInPlace(&name);
    *field = (struct field){.name = name, .kind = (enum field_kind)kind};
    if (has_record)
        field->record = (struct plan_object *)Py_NewRef(record);
    if (has_members)
        field->members = Py_NewRef(record);
    return add_kinds(self, field);
}

static PyObject *plan_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"cls", "fields", "blank", "known", "has_dict", "in_dict", NULL};
    PyObject *cls, *fields, *blank, *known;
    int has_dict, in_dict;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!O!O!O!pp:Plan", names, &PyType_Type, &cls,
                                     &PyTuple_Type, &fields, &PyDict_Type, &blank,
                                     &PyFrozenSet_Type, &known, &has_dict, &in_dict))
        return NULL;
    newfunc make = (newfunc)PyType_GetSlot((PyTypeObject *)cls, Py_tp_new);
    if (!make)
        return PyErr_Format(PyExc_TypeError,
                            "an instance of %R can't be made without its constructor", cls);
    struct plan_object *self = (struct plan_object *)PyType_GenericAlloc(type, 0);
    if (!self)
        return NULL;
    self->type = (PyTypeObject *)Py_NewRef(cls);
    self->make = make;
    self->nothing = PyTuple_New(0);
    self->dict_name = PyUnicode_InternFromString("__dict__");
    self->blank = PyDict_Copy(blank);
    self->known = Py_NewRef(known);
    self->has_dict = has_dict;
    self->in_dict = in_dict;
    self->fields = PyMem_Calloc((size_t)PyTuple_GET_SIZE(fields) + 1, sizeof *self->fields);
    bool made =
        self->nothing && self->dict_name && self->blank && (self->fields || PyErr_NoMemory());
    for (Py_ssize_t i = 0; made && i < PyTuple_GET_SIZE(fields); i++)
        made = add_field(self, type, PyTuple_GET_ITEM(fields, i));
    if (!made)
        Py_CLEAR(self);
    return (PyObject *)self;
}

static void plan_dealloc(PyObject *object) {
    struct plan_object *self = (struct plan_object *)object;
    for (Py_ssize_t i = 0; i < self->n_fields; i++) {
        Py_DECREF(self->fields[i].name);
        Py_XDECREF((PyObject *)self->fields[i].record);
        Py_XDECREF(self->fields[i].members);
    }
    PyMem_Free(self->fields);
    Py_XDECREF((PyObject *)self->type);
    Py_XDECREF(self->nothing);
    Py_XDECREF(self->dict_name);
    Py_XDECREF(self->blank);
    Py_XDECREF(self->known);
    extension_free(object);
}

static PyMethodDef plan_methods[] = {
    {"encode_reply", (PyCFunction)(void (*)(void))replies_encode, METH_FASTCALL, NULL},
    {"decode_reply", (PyCFunction)(void (*)(void))replies_decode, METH_FASTCALL, NULL},
    {0},
};

static PyType_Slot plan_slots[] = {
    {Py_tp_doc, "How the fields of a record are sent; see _delta.pyi."},
    {Py_tp_new, plan_new},
    {Py_tp_dealloc, plan_dealloc},
    {Py_tp_methods, plan_methods},
    {0, NULL},
};

PyType_Spec plan_spec = {
    .name = "mpspmd._delta.Plan",
    .basicsize = sizeof(struct plan_object),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = plan_slots,
};
