/* Plan: how the fields of a dataclass or Struct are sent. And the fields of a record, one by one.
 */
#include "delta.h"

#include <string.h>

enum {
    /* What needs the rows that requests have, what an order that replies have, */
    ROW_KINDS = 1 << FIELD_KEYS | 1 << FIELD_COUNTS | 1 << FIELD_PROGRESS | 1 << FIELD_TREND |
                1 << FIELD_GROUPS | 1 << FIELD_TAILS | 1 << FIELD_TOKENS | 1 << FIELD_KEY |
                1 << FIELD_KEYSET | 1 << FIELD_FINISHED,
    REPLY_KINDS = 1 << FIELD_ORDER | 1 << FIELD_INDEX,
    /* and of these what there is but one of in a message. */
    LONE_KINDS = (ROW_KINDS | REPLY_KINDS | 1 << FIELD_SUM) &
                 ~(1 << FIELD_KEY | 1 << FIELD_KEYSET | 1 << FIELD_TOKENS),
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

bool check_plan(const struct plan_object *plan, bool is_reply) {
    if (!(plan->kinds & (is_reply ? ROW_KINDS : REPLY_KINDS)))
        return true;
    PyErr_Format(PyExc_ValueError, "this plan is one for %s", is_reply ? "requests" : "replies");
    return false;
}

static bool add_field(struct plan_object *self, PyTypeObject *plan_type, PyObject *item) {
    PyObject *name, *record;
    int kind;
    if (!PyTuple_Check(item) || !PyArg_ParseTuple(item, "UiO:field", &name, &kind, &record)) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_TypeError, "a field is a tuple");
        return false;
    }
    bool has_record = PyObject_TypeCheck(record, plan_type), has_members = PyTuple_Check(record);
    bool wants_record = kind == FIELD_RECORD || kind == FIELD_RECORDS;
    if (kind < 0 || kind >= N_FIELD_KINDS || has_record != wants_record ||
        has_members != (kind == FIELD_MEMBER)) {
        PyErr_SetString(
            PyExc_ValueError,
            "a field is (name, kind, a Plan for RECORD and RECORDS, a tuple for MEMBER)");
        return false;
    }
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
    PyTypeObject *type = Py_TYPE(object);
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
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static bool put_records(struct step *step, const struct plan_object *plan, PyObject *list) {
    Py_ssize_t n = PyList_GET_SIZE(list);
    pack_byte(&step->out, CODE_KIND);
    pack_varint(&step->out, (uint64_t)n);
    bool put = true;
    for (Py_ssize_t i = 0; put && i < n; i++) {
        /* Looked at anew each time: an attribute's code may have changed the list. */
        PyObject *record = i < PyList_GET_SIZE(list) ? Py_NewRef(PyList_GET_ITEM(list, i)) : NULL;
        if (record && Py_IS_TYPE(record, plan->type))
            put = put_record(step, plan, record);
        else
            put = was_changed() == FITS;
        Py_XDECREF(record);
    }
    return put;
}

static bool are_records(PyObject *value, const struct plan_object *plan) {
    Py_ssize_t n = PyList_CheckExact(value) ? PyList_GET_SIZE(value) : 0;
    for (Py_ssize_t i = 0; i < n; i++)
        if (!Py_IS_TYPE(PyList_GET_ITEM(value, i), plan->type))
            return false;
    return n > 0;
}

static bool put_member(struct step *step, PyObject *members, PyObject *value) {
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(members); i++)
        if (PyTuple_GET_ITEM(members, i) == value) {
            pack_byte(&step->out, CODE_KIND);
            pack_varint(&step->out, (uint64_t)i);
            return true;
        }
    return put_plain(step, value);
}

static PyObject *get_member(struct step *step, PyObject *members) {
    uint64_t i = unpack_varint(&step->in);
    if (i < (uint64_t)PyTuple_GET_SIZE(members))
        return Py_NewRef(PyTuple_GET_ITEM(members, (Py_ssize_t)i));
    step->in.bad = true;
    return NULL;
}

static bool put_field(struct step *step, const struct field *field, PyObject *value) {
    size_t mark = step->out.length;
    if (field->kind == FIELD_RECORD && Py_IS_TYPE(value, field->record->type)) {
        pack_byte(&step->out, CODE_KIND);
        return put_record(step, field->record, value);
    }
    if (field->kind == FIELD_MEMBER)
        return put_member(step, field->members, value);
    if (field->kind == FIELD_RECORDS && are_records(value, field->record))
        return put_records(step, field->record, value);
    if (put_functions[field->kind]) {
        pack_byte(&step->out, CODE_KIND);
        enum fit fit = put_functions[field->kind](step, value);
        if (fit != UNFIT)
            return fit == FITS;
        step->out.length = mark;
    }
    return put_plain(step, value);
}

/* Attributes that somebody has added: a dict, or NULL without an exception when there are none. */
static PyObject *find_extras(const struct plan_object *plan, PyObject *attributes) {
    PyObject *extras = NULL, *name, *value;
    Py_ssize_t position = 0;
    bool found = true;
    while (found && PyDict_Next(attributes, &position, &name, &value)) {
        /* A name's own code may be asked whether it is equal to another's. */
        Py_INCREF(name);
        Py_INCREF(value);
        int known = PySet_Contains(plan->known, name);
        found = known >= 0;
        if (known == 0)
            found = (extras || (extras = PyDict_New())) && PyDict_SetItem(extras, name, value) == 0;
        Py_DECREF(name);
        Py_DECREF(value);
    }
    if (!found)
        Py_CLEAR(extras);
    return extras;
}

/* `n_found`: how many of the attributes are fields. */
static bool put_extras(struct step *step, const struct plan_object *plan, PyObject *attributes,
                       Py_ssize_t n_found) {
    PyObject *extras = NULL;
    if (attributes && PyDict_GET_SIZE(attributes) != n_found)
        extras = find_extras(plan, attributes);
    if (PyErr_Occurred())
        return false;
    bool put = extras ? put_cold(step, extras) : put_plain(step, Py_None);
    Py_XDECREF(extras);
    return put;
}

/* A new reference. Mostly it lies in the record's dict, where it is found sooner; and counted. */
static PyObject *get_attribute(PyObject *record, PyObject *attributes, PyObject *name,
                               Py_ssize_t *n_found) {
    PyObject *value = attributes ? PyDict_GetItemWithError(attributes, name) : NULL;
    *n_found += value != NULL;
    if (value || PyErr_Occurred())
        return Py_XNewRef(value);
    return PyObject_GetAttr(record, name);
}

bool put_record(struct step *step, const struct plan_object *plan, PyObject *record) {
    PyObject *attributes = plan->has_dict ? PyObject_GenericGetDict(record, NULL) : NULL;
    bool put = attributes || !plan->has_dict;
    Py_ssize_t n_found = 0;
    for (Py_ssize_t i = 0; put && i < plan->n_fields; i++) {
        PyObject *value = get_attribute(record, attributes, plan->fields[i].name, &n_found);
        put = value && put_field(step, &plan->fields[i], value);
        Py_XDECREF(value);
    }
    put = put && put_extras(step, plan, attributes, n_found);
    Py_XDECREF(attributes);
    return put;
}

static PyObject *get_records(struct step *step, const struct plan_object *plan) {
    size_t n = unpack_length(&step->in);
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list && i < n; i++) {
        PyObject *record = get_record(step, plan);
        if (!record || PyList_Append(list, record) != 0)
            Py_CLEAR(list);
        Py_XDECREF(record);
    }
    return list;
}

static PyObject *get_kind(struct step *step, const struct field *field) {
    if (field && field->kind == FIELD_RECORD)
        return get_record(step, field->record);
    if (field && field->kind == FIELD_MEMBER)
        return get_member(step, field->members);
    if (field && field->kind == FIELD_RECORDS)
        return get_records(step, field->record);
    if (field && get_functions[field->kind])
        return get_functions[field->kind](step);
    step->in.bad = true;
    return NULL;
}

/* `field`: NULL for the attributes that are no fields. */
static PyObject *get_field(struct step *step, const struct field *field) {
    uint8_t code = unpack_byte(&step->in);
    return code == CODE_KIND ? get_kind(step, field) : get_plain(step, code);
}

/* Sets the attribute `name`, or merges extras. Steals the value. */
static bool set_value(PyObject *attributes, PyObject *name, PyObject *value) {
    int failed = value ? 0 : -1;
    if (value && name)
        failed = PyDict_SetItem(attributes, name, value);
    else if (value && PyDict_Check(value))
        failed = PyDict_Update(attributes, value);
    Py_XDECREF(value);
    return failed == 0;
}

/* As pickle does it: no constructor is called, and a frozen dataclass isn't asked. */
static PyObject *make_record(const struct plan_object *plan, PyObject *attributes) {
    PyObject *record = plan->make(plan->type, plan->nothing, NULL);
    int failed = record ? 0 : -1;
    PyObject *name, *value;
    Py_ssize_t position = 0;
    /* Not PyObject_GenericSetDict(): CPython 3.13's leaves the instance's own values in force. */
    if (record && plan->in_dict)
        failed = PyObject_GenericSetAttr(record, plan->dict_name, attributes);
    while (!failed && !plan->in_dict && PyDict_Next(attributes, &position, &name, &value))
        failed = PyObject_GenericSetAttr(record, name, value);
    if (failed)
        Py_CLEAR(record);
    return record;
}

PyObject *get_record(struct step *step, const struct plan_object *plan) {
    PyObject *attributes = PyDict_Copy(plan->blank), *record = NULL;
    bool got = attributes != NULL;
    for (Py_ssize_t i = 0; got && i <= plan->n_fields; i++) {
        const struct field *field = i < plan->n_fields ? &plan->fields[i] : NULL;
        PyObject *value = get_field(step, field);
        got = set_value(attributes, field ? field->name : NULL, value);
    }
    if (got && !step->in.bad)
        record = make_record(plan, attributes);
    Py_XDECREF(attributes);
    return record;
}

PyObject *plan_encode(PyObject *self, PyObject *const *args, Py_ssize_t n_args);
PyObject *plan_decode(PyObject *self, PyObject *const *args, Py_ssize_t n_args);

static PyMethodDef plan_methods[] = {
    {"encode_reply", (PyCFunction)(void (*)(void))plan_encode, METH_FASTCALL, NULL},
    {"decode_reply", (PyCFunction)(void (*)(void))plan_decode, METH_FASTCALL, NULL},
    {0},
};

static PyType_Slot plan_slots[] = {
    {Py_tp_doc, "How the fields of a record are sent; see _native.pyi."},
    {Py_tp_new, plan_new},
    {Py_tp_dealloc, plan_dealloc},
    {Py_tp_methods, plan_methods},
    {0, NULL},
};

PyType_Spec plan_spec = {
    .name = "mpspmd._native.Plan",
    .basicsize = sizeof(struct plan_object),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = plan_slots,
};
