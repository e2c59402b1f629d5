/* The state of mpspmd._ring: its types, the exceptions that it raises, memory for large messages.
 */
#ifndef MPSPMD_PYTHON_MODULE_H
#define MPSPMD_PYTHON_MODULE_H

#include "extension/extension.h"
#include "python/block.h"

enum {
    LARGE_BYTES = 64 * 1024, /* copying so much is done without the GIL */
    SMALL_BYTES = 4 * 1024,  /* a record of up to this is copied, so that it is free at once */
    KIND_REQUEST = 1,        /* kinds of messages */
    KIND_REPLY = 2,
    KIND_PACKED = 0x2000, /* a flag of a kind: recv() unpacks the message, a packed value */
    KIND_STEP = 0x4000,   /* a flag of a kind: the step codec has encoded the message */
};

struct module_state { /* objects first: module.c walks through them */
    PyTypeObject *ring_type, *writer_type, *inbox_type, *page_type, *line_type, *liveness_type;
    PyTypeObject *block_type, *recorder_type, *track_type, *tap_type, *call_type, *exchange_type;
    PyObject *channel_closed, *channel_poisoned, *channel_corrupt, *channel_error;
    PyObject *no_reply; /* in the place of a reply that hasn't come */
    PyObject *name_finish, *name_hand_over, *name_release, *name_take;
    struct idle_blocks idle_blocks;
};

extern PyType_Spec ring_object_spec, writer_object_spec, inbox_object_spec, tap_object_spec;
extern PyType_Spec page_object_spec, line_object_spec, liveness_object_spec, block_spec;
extern PyType_Spec call_object_spec, exchange_object_spec;
extern PyMethodDef values_methods[], serve_methods[];

/* Of one of the module's types, or of a class that derives from one. NULL with an exception set. */
struct module_state *module_state_of_type(PyTypeObject *type);

/* Of an object of one of the module's types. */
static inline struct module_state *module_state_of(PyObject *self) {
    return PyType_GetModuleState(Py_TYPE(self));
}

#endif
