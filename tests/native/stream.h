/* Both ends of a stream of generated messages through one ring. Neither waits. */
#ifndef NATIVE_STREAM_H
#define NATIVE_STREAM_H

#include "load.h"
#include "ring/message.h"

struct outbox {
    struct ring_writer writer;
    struct load load;
    struct sample sample; /* the message that goes next */
    unsigned char *bytes;
    struct iovec parts[LOAD_MAX_PARTS];
    struct outgoing message;
    bool begun;
    bool patient; /* finishes every message, however long it takes */
    bool hasty;   /* the last outbox_want() has asked for just what was needed */
};

void outbox_open(struct outbox *outbox, struct ring *ring, uint64_t seed);
void outbox_close(struct outbox *outbox);

/* RING_OK: the next message is out. RING_ABORTED: it was given up with a part of it out.
 * RING_AGAIN: wait for the space of outbox_next_length(). */
enum ring_result outbox_send(struct outbox *outbox);
uint32_t outbox_next_length(const struct outbox *outbox);

/* Before a sleep: asks the readers for a quarter of the ring, or for just what is needed, in turn.
 */
void outbox_want(struct outbox *outbox);

struct inbox {
    const char *who;
    struct ring_reader reader;
    struct load load;
    struct incoming incoming;
    uint64_t sequence; /* of the message that must come next */
};

void inbox_open(struct inbox *inbox, const char *who, struct ring *ring, uint32_t slot,
                uint64_t seed);

/* Takes one message and checks all of it: RING_OK, RING_ABORTED, or why there is none. */
enum ring_result inbox_take(struct inbox *inbox);

#endif
