/* What Inbox and Tap have in common: readers of rings that share a data bell, and the wait for it.
 * One thread at a time, except listener_interrupt(). */
#ifndef MPSPMD_PYTHON_LISTENER_H
#define MPSPMD_PYTHON_LISTENER_H

#include "python/waits.h"
#include "ring/reader.h"

struct listener {
    Py_ssize_t n;
    struct ring_reader *readers;
    PyObject *rings; /* a tuple of ring objects */
    PyObject *page;  /* keeps the counter of polling threads alive */
    bool busy;       /* a thread is within one of the methods */
    unsigned generation;
    _Atomic uint32_t interrupts; /* listener_interrupt() calls, */
    uint32_t interrupts_seen;    /* and how many of them have ended a wait */
    _Atomic uint64_t own_counters[N_COUNTERS];
    struct waiter waiter;
    struct strategy strategy;
};

/* Takes a reader's slot of each ring in the tuple `rings`. `slots`: a tuple of as many, or one for
 * all. `page`: a StatusPage or None. `ready` gets `self`, the object that the listener belongs to,
 * and says whether a wait is over. Counts waits in `counters`, or, if that is NULL, in its own.
 * False with an exception set. */
bool listener_open(struct listener *listener, PyObject *self, PyObject *rings, PyObject *slots,
                   PyObject *page, int wait, bool (*ready)(void *self), _Atomic uint64_t *counters);
void listener_close(struct listener *listener);

/* Ends the wait of another thread, or the next one. NULL with an exception set, or None. */
PyObject *listener_interrupt(struct listener *listener);

/* Whether listener_interrupt() was called since the last time. */
bool listener_take_interrupt(struct listener *listener);

#endif
