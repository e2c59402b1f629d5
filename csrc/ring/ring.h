/* The ring: one writer, n readers, variable-length records, no lock.
 *
 * Every reader sees every record, in order. A record is contiguous, because the data is mapped
 * twice, back to back. Nothing here waits or allocates: a call that can't go on returns RING_AGAIN,
 * and wait.h waits. README.md explains the memory ordering. */
#ifndef MPSPMD_RING_RING_H
#define MPSPMD_RING_RING_H

#include <stdbool.h>
#include <stddef.h>

#include "ring/bell.h"

enum ring_result {
    RING_OK,
    RING_AGAIN,       /* no record, or no space */
    RING_NEED_BUFFER, /* message_receive(): a message of many records begins */
    RING_ABORTED,     /* message_receive(): the writer gave that message up */
    RING_CLOSED,
    RING_POISONED,
    RING_DEAD,    /* this reader has been marked dead */
    RING_CORRUPT, /* what is in the ring can't have been written by a writer, or by a reader */
    RING_TAKEN,   /* ring_writer_init(): another writer has the ring */
};

/* One process's mapping of a ring. Any thread may use it, but see the writer and the reader. The
 * numbers here were checked when the segment was mapped. Those in the header are never read again,
 * because others may overwrite them. */
struct ring {
    struct ring_header *shared;
    unsigned char *data; /* `capacity` bytes, twice */
    uint64_t capacity;
    uint32_t n_readers;
    struct bell *data_bell;  /* the ring's own, or one that several rings share */
    struct bell *space_bell; /* likewise */
};

/* A sleeping writer's bit. Readers use the bit of their slot, in the bells that they sleep on;
 * slot 0 of a reply ring is the engine, whose bell takes both. */
enum { SPACE_BIT = 2 };

/* No more records: readers drain what is there, then get RING_CLOSED. Any process may call. */
void ring_close(struct ring *ring);

/* The same, with a reason; beats close and is final: the first reason stays. */
void ring_poison(struct ring *ring, uint16_t code, int32_t rank);

/* The writer no longer waits for this reader. Only for a process that is known to be gone. */
void ring_mark_dead(struct ring *ring, uint32_t slot);

uint64_t ring_state_word(const struct ring *ring);

/* The longest record, in payload bytes: half of the ring. */
uint32_t ring_max_record(const struct ring *ring);

/* What a record takes in the data: its header, the payload and the padding. */
static inline uint64_t ring_record_bytes(uint32_t length) {
    uint64_t bytes = sizeof(struct record_header) + (uint64_t)length;
    return (bytes + RECORD_ALIGN - 1) & ~(uint64_t)(RECORD_ALIGN - 1);
}

#endif
