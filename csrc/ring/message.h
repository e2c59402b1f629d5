/* Messages of any size. One that is too large for a record goes as fragments, and the receiver
 * joins them in its own memory. */
#ifndef MPSPMD_RING_MESSAGE_H
#define MPSPMD_RING_MESSAGE_H

#include <sys/uio.h>

#include "ring/reader.h"
#include "ring/writer.h"

/* A message on its way out. The parts must stay as they are until it is sent or abandoned. */
struct outgoing {
    const struct iovec *parts;
    size_t n_parts;
    uint64_t total; /* bytes in all parts */
    uint64_t sent;  /* bytes published so far */
    size_t part;    /* where the next fragment starts: part, and offset in it */
    size_t offset;
    uint16_t kind;
    uint64_t tag;
};

void message_begin(struct outgoing *message, const struct iovec *parts, size_t n_parts,
                   uint16_t kind, uint64_t tag);

/* Publishes as much as there is space for. RING_OK when all of it is out; RING_AGAIN otherwise:
 * wait until ring_writable(writer, message_next_length(…)), and call again. Each fragment rings
 * the readers' bell, so that they free its space while the next one is waited for. */
enum ring_result message_send(struct ring_writer *writer, struct outgoing *message);

/* The payload bytes of the record that message_send() would publish next. */
uint32_t message_next_length(const struct ring_writer *writer, const struct outgoing *message);

/* Gives a message up. If fragments of it are out, the next message_send() tells the readers so. */
void message_abandon(struct ring_writer *writer, const struct outgoing *message);

/* What a reader is receiving; zero it before the first use. */
struct incoming {
    struct record record; /* a whole message in one record, until ring_release() */
    unsigned char *buffer;
    uint64_t total;
    uint64_t filled;
    uint16_t kind;
    uint64_t tag;
    bool assembling; /* some fragments are in `buffer` */
};

/* RING_OK: a message has come. It is whole in `record`, which the caller releases, or joined in a
 * buffer, which message_take() returns.
 * RING_NEED_BUFFER: set `buffer` to `total` bytes and call again. Without memory nothing is lost:
 * the next call returns the same. RING_ABORTED: message_take() returns a buffer that is no longer
 * needed. RING_AGAIN: not yet. */
enum ring_result message_receive(struct ring_reader *reader, struct incoming *message);

/* The buffer, now the caller's; NULL when the message came in one record. */
unsigned char *message_take(struct incoming *message);

#endif
