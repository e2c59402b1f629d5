/* Inbox: the reading end of one ring or of several that share a bell. One thread at a time. */
#ifndef MPSPMD_PYTHON_INBOX_OBJECT_H
#define MPSPMD_PYTHON_INBOX_OBJECT_H

#include "extension/extension.h"
#include "python/listener.h"
#include "ring/message.h"
#include "run/recorder.h"

struct inbox_object {
    PyObject_HEAD
    struct listener listener;
    struct source {
        struct incoming message;
        PyObject *block; /* message.buffer is its memory */
        bool ended;      /* recv() has seen that the ring is closed */
    } *sources;          /* one for each ring */
    Py_ssize_t next;     /* the ring that is polled first */
    Py_ssize_t current;  /* the ring whose record is being read in place, or -1 */
    Py_ssize_t exports;  /* memoryviews of that record */
    struct status_line *line;
    PyObject *line_owner;
    struct track *track; /* NULL: nothing is recorded */
    PyObject *track_owner;
};

/* True when a record, an interrupt or the end of a ring is there for recv(). */
bool inbox_is_readable(struct inbox_object *inbox);

/* What Inbox.recv() returns: a new tuple, or None after an interrupt. NULL with an exception set.
 * `waiting`: zero it and set its key before the first call. Later calls go on with the same wait,
 * until one returns a message. */
PyObject *inbox_receive(struct inbox_object *inbox, uint64_t deadline_ns, struct waiting *waiting);

/* What Inbox.try_recv() returns, but NULL without an exception if there is no message. */
PyObject *inbox_poll(struct inbox_object *inbox);

/* Polls every ring once (received.c). A message; or NULL, with an exception set or if there is no
 * message. */
PyObject *received_poll(struct inbox_object *inbox);

/* Inbox.release(). False with an exception set. */
bool inbox_release_record(struct inbox_object *inbox);

#endif
