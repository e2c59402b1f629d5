/* Exchange: requests that are plain or encoded already, and their replies, with no Python code in
 * between but the step codec's.
 *
 * Reader derives from it. Its methods `take`, `finish` and `hand_over` do what isn't plain. What
 * changes a call or the leader here happens in one go: no Python code runs meanwhile, and the
 * interpreter's lock is held. */
#ifndef MPSPMD_PYTHON_EXCHANGE_OBJECT_H
#define MPSPMD_PYTHON_EXCHANGE_OBJECT_H

#include "python/call_object.h"
#include "python/inbox_object.h"
#include "python/page_object.h"
#include "python/writer_object.h"

/* One is enough without signals' handlers. A handler that reads while its thread takes a message
 * may leave another one. */
enum { MOST_UNTAKEN = 8 };

struct exchange_object {
    PyObject_HEAD
    struct module_state *state; /* NULL until __init__() is through */
    struct writer_object *requests;
    struct inbox_object *replies;
    struct page_object *page;
    PyObject *pending; /* a dict: step -> call */
    PyTypeObject *call_type;
    PyObject *decode_reply;   /* the step codec's, or None */
    PyObject *note_reply;     /* called with each message first; NULL or None: nothing is called */
    unsigned long long steps; /* the number of the last request */
    unsigned long leader;     /* the reading thread's identity; 0: nobody reads */
    unsigned long sender;     /* the thread that sends a request that isn't plain; 0: none */
    PyObject *followers;      /* a list: a lock of each thread that waits until it is its turn */
    PyObject *untold;         /* a list: futures whose calls have ended, and which are to be told */
    char sender_waits;        /* a thread waits for space, and relies on the leader to read */
    unsigned n_taken;         /* messages */
    unsigned n_untaken;
    struct received untaken[MOST_UNTAKEN]; /* messages that are left for the next reader */
};

/* The rest is in exchange_read.c. */

/* Ends a call that is in `pending`. 1: this thread has done it. 0: it isn't there. -1 with an
 * exception set. */
int exchange_end_call(struct exchange_object *exchange, struct call_object *call, PyObject *error);

/* Whether nothing is to be read for the call: it is done or, with `tells`, there is a future in
 * `untold`. */
static inline bool exchange_is_over(const struct exchange_object *exchange,
                                    const struct call_object *call, bool tells) {
    return call->done || (tells && PyList_GET_SIZE(exchange->untold) > 0);
}

/* Only for the leader. Reads until nothing is to be read for the call: 1. 0: it is the deadline. -1
 * with an exception set. */
int exchange_read_until(struct exchange_object *exchange, struct call_object *call,
                        uint64_t deadline_ns, bool tells);

/* Only for the leader. Takes all messages that have come. False with an exception set. */
bool exchange_read_all(struct exchange_object *exchange);

/* This thread stops leading, also when an exception is set. That stays, unless waking others raises
 * one. */
bool exchange_give_up_lead(struct exchange_object *exchange);

#endif
