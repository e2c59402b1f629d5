/* The state of mpspmd._delta: its types, and objects that many messages share. */
#ifndef MPSPMD_DELTA_MODULE_H
#define MPSPMD_DELTA_MODULE_H

#include "delta/numbers.h"
#include "delta/reuse.h"
#include "extension/extension.h"

struct module_state { /* objects first: module.c walks through them */
    PyTypeObject *plan_type, *encoder_type, *decoder_type, *reply_order_type;
    PyObject *codec_desync;
    struct spare_lists spare_lists;
    struct shared_ints ints;
};

extern PyType_Spec encoder_spec, decoder_spec, reply_order_spec;

/* `self` is an object of one of the module's types. */
static inline struct module_state *module_state_of(PyObject *self) {
    return PyType_GetModuleState(Py_TYPE(self));
}

#endif
