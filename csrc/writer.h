/* What the files of Writer share. One thread at a time, with the GIL. */
#ifndef MPSPMD_WRITER_H
#define MPSPMD_WRITER_H

#include "module.h"

enum { INLINE_PARTS = 16 };

struct writer_object {
    PyObject_HEAD struct ring_object *owner;
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
    struct inbox_object *watched; /* during wait() */
    struct strategy strategy;     /* never learns: space comes when a reader gets to it */
    _Atomic uint64_t counts[N_WAIT_COUNTS];
    _Atomic uint64_t *bytes_out;
    PyObject *line_owner;
};

/* What a sending method is called with: (kind, tag, what, timeout=None). */
struct sending {
    uint16_t kind;
    uint64_t tag;
    PyObject *what, *timeout;
};

/* Begins a message of what is bytes, or a list of buffers, and holds them. */
bool writer_begin(struct writer_object *self, const struct sending *sending);

/* 1: it is out. 0: no space yet. -1: the ring has ended; an exception is set. */
int writer_go_on(struct writer_object *self);

/* Gives up what is under way, if anything is. */
void writer_give_up(struct writer_object *self);

/* Lets go of what is held for it. */
void writer_let_go(struct writer_object *self);

/* The short way for what needs no fragments and has space: straight into the ring, with nothing
 * held. False when this is no such message, and then nothing has happened. */
bool writer_put_bytes(struct writer_object *self, const struct sending *sending);
bool writer_put_packed(struct writer_object *self, const struct sending *sending, size_t size);

#endif
