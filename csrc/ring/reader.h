/* The reading end of a ring. */
#ifndef MPSPMD_RING_READER_H
#define MPSPMD_RING_READER_H

#include "ring/ring.h"

/* The reading end: one thread at a time. */
struct ring_reader {
    struct ring *ring;
    uint32_t slot;
    uint64_t head;
    uint64_t tail; /* as last seen */
};

struct record {
    struct record_header header;
    const unsigned char *payload; /* in the ring, until ring_release() */
};

/* Takes the slot: false when it is taken already, or dead. */
bool ring_attach(struct ring_reader *reader, struct ring *ring, uint32_t slot, uint32_t pid);

/* Gives back a slot from which nothing has been read. */
void ring_detach(struct ring_reader *reader);

/* The next record, which stays the next until released. */
enum ring_result ring_peek(struct ring_reader *reader, struct record *record);
void ring_release(struct ring_reader *reader, const struct record *record);

/* Frees all records before this position, from the head to the tail. */
void ring_release_to(struct ring_reader *reader, uint64_t position);

/* What the reader sleeps for: a record, or a reason not to wait for one. */
bool ring_readable(struct ring_reader *reader);

#endif
