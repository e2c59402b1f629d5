/* The replies: which call each is for. */
#ifndef MPSPMD_PYTHON_EXCHANGE_READ_H
#define MPSPMD_PYTHON_EXCHANGE_READ_H

#include "python/exchange_object.h"

/* Ends a call that is in `pending`. 1: this thread has done it. 0: it isn't there. -1 with an
 * exception set. */
int exchange_end_call(struct exchange_object *exchange, struct call_object *call, PyObject *error);

/* Only for the leader. Reads until the call is done, or false with an exception set. */
bool exchange_read_until(struct exchange_object *exchange, struct call_object *call,
                         uint64_t deadline_ns);

/* Only for the leader. Takes all messages that have come. False with an exception set. */
bool exchange_read_all(struct exchange_object *exchange);

/* This thread stops leading, also when an exception is set. That stays, unless waking others raises
 * one. */
bool exchange_give_up_lead(struct exchange_object *exchange);

#endif
