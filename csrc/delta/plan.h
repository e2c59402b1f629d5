/* Plan: how the fields of a dataclass or Struct are sent. */
#ifndef MPSPMD_DELTA_PLAN_H
#define MPSPMD_DELTA_PLAN_H

#include "delta/fields.h"

struct plan_object {
    PyObject_HEAD
    PyTypeObject *type;
    newfunc make;
    PyObject *nothing;   /* () */
    PyObject *blank;     /* dict: every field's name -> None, in order */
    PyObject *known;     /* frozenset: names of attributes that are fields, or follow from fields */
    PyObject *dict_name; /* "__dict__" */
    bool has_dict;       /* instances have a __dict__ */
    bool in_dict;        /* all fields are in it: none is a slot or a property */
    uint32_t kinds;      /* a bit for each kind in use, in inner records too */
    Py_ssize_t n_fields;
    struct field {
        PyObject *name;
        enum field_kind kind;
        struct plan_object *record;
        PyObject *members; /* tuple */
    } *fields;
};

extern PyType_Spec plan_spec;

/* Whether the plan is one for replies, or for requests. False with an exception set. */
bool plan_check(const struct plan_object *plan, bool is_reply);

/* A record: its fields, one after the other. */
bool record_put(struct message *message, const struct plan_object *plan, PyObject *record);
PyObject *record_get(struct message *message, const struct plan_object *plan);

/* A reply is encoded against the request that it answers, and against the order of an earlier reply
 * that its sender knows to have arrived. Nothing is kept here, so a reply may be dropped. */
PyObject *replies_encode(PyObject *plan, PyObject *const *args, Py_ssize_t n_args);
PyObject *replies_decode(PyObject *plan, PyObject *const *args, Py_ssize_t n_args);

#endif
