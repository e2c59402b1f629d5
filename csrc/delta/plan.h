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
    bool has_dict;       /* its instances do, */
    bool in_dict;        /* and all fields are in there: none is a slot or a property */
    uint32_t kinds;      /* a bit for each that is used, in records within too */
    Py_ssize_t n_fields;
    struct field {
        PyObject *name;
        enum field_kind kind;
        struct plan_object *record;
        PyObject *members; /* tuple */
    } *fields;
};

extern PyType_Spec plan_spec;

/* False with an exception set. */
bool plan_check(const struct plan_object *plan, bool is_reply);

#endif
