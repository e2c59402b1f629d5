/* Sending a message: with its buffers held until all of it is in the ring, or straight into it. */
#ifndef MPSPMD_PYTHON_OUTGOING_H
#define MPSPMD_PYTHON_OUTGOING_H

#include "python/writer_object.h"

/* The arguments of a sending method: (kind, tag, what, timeout=None). */
struct sending {
    uint16_t kind;
    uint64_t tag;
    PyObject *what, *timeout;
};

/* Begins a message of bytes, or of a list of buffers, and holds them. */
bool outgoing_begin(struct writer_object *writer, const struct sending *sending);

/* 1: all of it was sent. 0: no space yet. -1: the ring has ended; an exception is set. */
int outgoing_go_on(struct writer_object *writer);

/* Gives up the message under way, if there is one. */
void outgoing_give_up(struct writer_object *writer);

/* Releases the buffers that are held for it. */
void outgoing_let_go(struct writer_object *writer);

/* Write a message that needs no fragments and has space straight into the ring. False, and nothing
 * is written, for any other message. */
bool outgoing_put_bytes(struct writer_object *writer, const struct sending *sending);
bool outgoing_put_packed(struct writer_object *writer, const struct sending *sending, size_t size);

/* Waits as waits_run() does, until there is space, an interrupt, or something in the watched inbox.
 * It first asks for a quarter of the ring, and then for less, because a reader may stop before it
 * frees so much. */
int space_wait(struct writer_object *writer, uint64_t deadline_ns);

/* Sends a message of bytes or buffers. 1, or -1 with an exception set. */
int space_send(struct writer_object *writer, struct sending *sending);

/* 1: it was sent. 0: it isn't a plain value. -1 with an exception set. */
int space_send_packed(struct writer_object *writer, struct sending *sending);

#endif
