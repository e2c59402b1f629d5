/* A writer that waits for space in its ring. */
#ifndef MPSPMD_PYTHON_SPACE_H
#define MPSPMD_PYTHON_SPACE_H

#include "python/outgoing.h"

/* As waits_run(): until there is space, an interrupt, or something in the watched inbox. First asks
 * for a quarter of the ring, and then for less, because a reader may stop before it frees so much.
 */
int space_wait(struct writer_object *writer, uint64_t deadline_ns);

/* Sends a message of bytes or buffers. False with an exception set. */
bool space_send(struct writer_object *writer, const struct sending *sending);

/* 1: it was sent. 0: it isn't a plain value. -1 with an exception set. */
int space_send_packed(struct writer_object *writer, struct sending *sending);

#endif
