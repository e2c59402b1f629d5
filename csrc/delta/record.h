/* A record as its fields, one after the other, each as the plan says. */
#ifndef MPSPMD_DELTA_RECORD_H
#define MPSPMD_DELTA_RECORD_H

#include "delta/message.h"
#include "delta/plan.h"

bool record_put(struct message *message, const struct plan_object *plan, PyObject *record);
PyObject *record_get(struct message *message, const struct plan_object *plan);

#endif
