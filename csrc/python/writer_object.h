/* Writer: the writing end of a ring. One thread at a time, with the GIL. */
#ifndef MPSPMD_PYTHON_WRITER_OBJECT_H
#define MPSPMD_PYTHON_WRITER_OBJECT_H

#include "extension/extension.h"
#include "python/inbox_object.h"
#include "python/ring_object.h"
#include "run/recorder.h"

enum { INLINE_PARTS = 16 };

struct writer_object {
    PyObject_HEAD
    struct ring_object *owner;
    struct ring_writer writer;
    struct outgoing message;
    bool busy;    /* a thread is within one of the methods, */
    bool pending; /* a message is under way, and `views` are held for it */
    Py_ssize_t n_views;
    Py_buffer *views;
    struct iovec *parts;
    Py_buffer inline_views[INLINE_PARTS];
    struct iovec inline_parts[INLINE_PARTS];
    _Atomic uint32_t interrupts;
    uint32_t interrupts_seen;
    struct inbox_object *watched;          /* during wait() */
    struct strategy strategy;              /* never learns: space comes when a reader gets to it */
    _Atomic uint64_t counters[N_COUNTERS]; /* of its waits; nobody reads them */
    _Atomic uint64_t *bytes_out;
    PyObject *line_owner;
    struct track *track; /* NULL: nothing is recorded */
    PyObject *track_owner;
};

/* Writer.send_packed() without a timeout. 1: it was sent. 0: it isn't a plain value. -1 with an
 * exception set. */
int writer_send_packed(struct writer_object *writer, uint16_t kind, uint64_t tag, PyObject *value);

/* Sends a whole message without waiting: a value that values_size() has measured, or, with `size`
 * -1, a bytes object as it is. Does nothing and returns false if the message needs more space than
 * is free, or several records; if the object is large, or no bytes object; if the writer is in use;
 * or if its ring has ended. */
bool writer_try(struct writer_object *writer, uint16_t kind, uint64_t tag, PyObject *what,
                Py_ssize_t size);

/* Ends the wait() of another thread, or the next one. */
void writer_interrupt(struct writer_object *writer);

#endif
