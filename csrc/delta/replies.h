/* Replies: against the request that they answer, and the order of an earlier reply that its sender
 * has been told has come. Nothing is kept here, so that a reply may be dropped. */
#ifndef MPSPMD_DELTA_REPLIES_H
#define MPSPMD_DELTA_REPLIES_H

#include "extension/extension.h"

extern PyType_Spec reply_order_spec;

/* Methods of Plan: (record, base, dumps) -> (message, order), (payload, base, loads) -> (record,
 * order). */
PyObject *replies_encode(PyObject *plan, PyObject *const *args, Py_ssize_t n_args);
PyObject *replies_decode(PyObject *plan, PyObject *const *args, Py_ssize_t n_args);

#endif
