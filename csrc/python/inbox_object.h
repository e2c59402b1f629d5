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

/* A message that has come. */
struct received {
    PyObject *payload; /* a new reference; NULL: no message */
    Py_ssize_t source; /* its ring's place in the inbox */
    uint16_t kind;     /* with KIND_PACKED only if the payload is the unpacked value */
    bool copied;       /* out of one record, which may be released */
    uint64_t tag, bytes;
};

/* True when a record, an interrupt or the end of a ring is there for recv(). */
bool inbox_is_readable(struct inbox_object *inbox);

enum { RECEIVED_LATE = 2 };

/* 1: a message. 0: an interrupt. RECEIVED_LATE: it is the deadline. -1 with an exception set.
 * `waiting`: zero it and set its key before the first call. Later calls go on with the same wait,
 * until one returns a message. */
int inbox_receive(struct inbox_object *inbox, uint64_t deadline_ns, struct waiting *waiting,
                  struct received *message);

/* 1: a message. 0: there is none. -1 with an exception set. */
int inbox_poll(struct inbox_object *inbox, struct received *message);

/* The rest is in received.c. */

/* Polls every ring once. Returns what inbox_poll() does. The message stays the next one of its ring
 * until received_accept(). */
int received_poll(struct inbox_object *inbox, struct received *message);
void received_accept(struct inbox_object *inbox, const struct received *message);

/* What Inbox.recv() returns. NULL with an exception set. */
PyObject *received_tuple(const struct received *message);

/* The opposite: a tuple that Python code has returned. False with an exception set. */
bool received_parse(PyObject *tuple, struct received *message);

/* Inbox.release(). False with an exception set. */
bool inbox_release_record(struct inbox_object *inbox);

#endif
