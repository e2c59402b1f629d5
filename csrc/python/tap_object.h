/* Tap: reads the bytes of one ring or several by their positions, to copy them into the rings of
 * another machine. One thread at a time, except interrupt(). */
#ifndef MPSPMD_PYTHON_TAP_OBJECT_H
#define MPSPMD_PYTHON_TAP_OBJECT_H

#include "extension/extension.h"
#include "python/waits.h"
#include "ring/reader.h"

struct tap_object {
    PyObject_HEAD
    Py_ssize_t n_readers;
    struct ring_reader *readers;
    uint64_t *positions; /* what wait() has been told that its caller has */
    PyObject *rings, *page_owner;
    bool busy; /* a thread waits */
    unsigned generation;
    _Atomic uint32_t interrupts; /* interrupt() calls, */
    uint32_t interrupts_seen;    /* and how many of them wait() has answered */
    _Atomic uint64_t counts[N_WAIT_COUNTS];
    struct waiter waiter;
    struct strategy strategy;
};

extern PyType_Spec tap_object_spec;

#endif
