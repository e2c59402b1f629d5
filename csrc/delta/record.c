#include "delta/plain.h"
#include "delta/plan.h"

static bool put_records(struct message *message, const struct plan_object *plan, PyObject *list) {
    Py_ssize_t n = PyList_GET_SIZE(list);
    pack_byte(&message->out, CODE_KIND);
    pack_varint(&message->out, (uint64_t)n);
    bool put = true;
    for (Py_ssize_t i = 0; put && i < n; i++) {
        /* Checked again each time: code of an attribute may have changed the list. */
        PyObject *record = i < PyList_GET_SIZE(list) ? Py_NewRef(PyList_GET_ITEM(list, i)) : NULL;
        put = record && Py_IS_TYPE(record, plan->type);
        if (!put)
            message_raise_changed();
        put = put && record_put(message, plan, record);
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

static bool put_member(struct message *message, PyObject *members, PyObject *value) {
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(members); i++)
        if (PyTuple_GET_ITEM(members, i) == value) {
            pack_byte(&message->out, CODE_KIND);
            pack_varint(&message->out, (uint64_t)i);
            return true;
        }
    return plain_put(message, value);
}

static PyObject *get_member(struct message *message, PyObject *members) {
    uint64_t i = unpack_varint(&message->in);
    if (i < (uint64_t)PyTuple_GET_SIZE(members))
        return Py_NewRef(PyTuple_GET_ITEM(members, (Py_ssize_t)i));
    return message_bad(message);
}

static bool put_field(struct message *message, const struct field *field, PyObject *value) {
    size_t mark = message->out.length;
    if (field->kind == FIELD_RECORD && Py_IS_TYPE(value, field->record->type)) {
        pack_byte(&message->out, CODE_KIND);
        return record_put(message, field->record, value);
    }
    if (field->kind == FIELD_MEMBER)
        return put_member(message, field->members, value);
    if (field->kind == FIELD_RECORDS && are_records(value, field->record))
        return put_records(message, field->record, value);
    if (fields_codecs[field->kind].put) {
        pack_byte(&message->out, CODE_KIND);
        enum fit fit = fields_codecs[field->kind].put(message, value, field->kind);
        if (fit != UNFIT)
            return fit == FITS;
        message->out.length = mark;
    }
    return plain_put(message, value);
}

/* A dict of the attributes that no field is. NULL if there are none, or with an exception set. */
static PyObject *find_extras(const struct plan_object *plan, PyObject *attributes) {
    PyObject *extras = NULL, *name, *value;
    Py_ssize_t position = 0;
    bool found = true;
    while (found && PyDict_Next(attributes, &position, &name, &value)) {
        /* Comparing a name may run its own code, which may drop both. */
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
static bool put_extras(struct message *message, const struct plan_object *plan,
                       PyObject *attributes, Py_ssize_t n_found) {
    PyObject *extras = NULL;
    if (attributes && PyDict_GET_SIZE(attributes) != n_found)
        extras = find_extras(plan, attributes);
    if (PyErr_Occurred())
        return false;
    bool put = extras ? plain_put_cold(message, extras) : plain_put(message, Py_None);
    Py_XDECREF(extras);
    return put;
}

/* A new reference. Counts it if it is in the record's dict: nearly all are, and that is the fastest
 * place to look. */
static PyObject *get_attribute(PyObject *record, PyObject *attributes, PyObject *name,
                               Py_ssize_t *n_found) {
    PyObject *value = attributes ? PyDict_GetItemWithError(attributes, name) : NULL;
    *n_found += value != NULL;
    if (value || PyErr_Occurred())
        return Py_XNewRef(value);
    return PyObject_GetAttr(record, name);
}

bool record_put(struct message *message, const struct plan_object *plan, PyObject *record) {
    PyObject *attributes = plan->has_dict ? PyObject_GenericGetDict(record, NULL) : NULL;
    bool put = attributes || !plan->has_dict;
    Py_ssize_t n_found = 0;
    for (Py_ssize_t i = 0; put && i < plan->n_fields; i++) {
        PyObject *value = get_attribute(record, attributes, plan->fields[i].name, &n_found);
        put = value && put_field(message, &plan->fields[i], value);
        Py_XDECREF(value);
    }
    put = put && put_extras(message, plan, attributes, n_found);
    Py_XDECREF(attributes);
    return put;
}

static PyObject *get_records(struct message *message, const struct plan_object *plan) {
    size_t n = unpack_length(&message->in);
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list && i < n; i++) {
        PyObject *record = record_get(message, plan);
        if (!record || PyList_Append(list, record) != 0)
            Py_CLEAR(list);
        Py_XDECREF(record);
    }
    return list;
}

static PyObject *get_kind(struct message *message, const struct field *field) {
    if (field && field->kind == FIELD_RECORD)
        return record_get(message, field->record);
    if (field && field->kind == FIELD_MEMBER)
        return get_member(message, field->members);
    if (field && field->kind == FIELD_RECORDS)
        return get_records(message, field->record);
    if (field && fields_codecs[field->kind].get)
        return fields_codecs[field->kind].get(message, field->kind);
    return message_bad(message);
}

/* `field`: NULL for the dict of attributes that no field is. */
static PyObject *get_field(struct message *message, const struct field *field) {
    uint8_t code = unpack_byte(&message->in);
    return code == CODE_KIND ? get_kind(message, field) : plain_get(message, code);
}

/* Sets the attribute `name`, or all in the dict `value` if `name` is NULL. Takes over the value's
 * reference. */
static bool set_value(PyObject *attributes, PyObject *name, PyObject *value) {
    int failed = value ? 0 : -1;
    if (value && name)
        failed = PyDict_SetItem(attributes, name, value);
    else if (value && PyDict_Check(value))
        failed = PyDict_Update(attributes, value);
    Py_XDECREF(value);
    return failed == 0;
}

/* As pickle does it: without the constructor, and past a frozen dataclass's __setattr__(). */
static PyObject *make_record(const struct plan_object *plan, PyObject *attributes) {
    PyObject *record = plan->make(plan->type, plan->nothing, NULL);
    int failed = record ? 0 : -1;
    PyObject *name, *value;
    Py_ssize_t position = 0;
    /* PyObject_GenericSetDict() of CPython 3.13 would leave the instance's own values in force. */
    if (record && plan->in_dict)
        failed = PyObject_GenericSetAttr(record, plan->dict_name, attributes);
    while (!failed && !plan->in_dict && PyDict_Next(attributes, &position, &name, &value))
        failed = PyObject_GenericSetAttr(record, name, value);
    if (failed)
        Py_CLEAR(record);
    return record;
}

PyObject *record_get(struct message *message, const struct plan_object *plan) {
    PyObject *attributes = PyDict_Copy(plan->blank), *record = NULL;
    bool got = attributes != NULL;
    for (Py_ssize_t i = 0; got && i <= plan->n_fields; i++) {
        const struct field *field = i < plan->n_fields ? &plan->fields[i] : NULL;
        PyObject *value = get_field(message, field);
        got = set_value(attributes, field ? field->name : NULL, value);
    }
    if (got && !message->in.bad)
        record = make_record(plan, attributes);
    Py_XDECREF(attributes);
    return record;
}
