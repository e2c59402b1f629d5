/* The writing end of a ring. */
#ifndef MPSPMD_RING_WRITER_H
#define MPSPMD_RING_WRITER_H

#include "ring/ring.h"

/* The writing end: one for each ring, and one thread at a time. */
struct ring_writer {
    struct ring *ring; /* NULL: this writer has no ring */
    uint64_t tail;     /* where the next record goes: shared tail, kept here so as not to load it */
    uint64_t limit;    /* the tail may go up to here: smallest head at the last scan + capacity */
    uint64_t staged;   /* bytes of an unfinished record beyond the tail: ring_append() */
    uint64_t published_ns; /* the ring's, kept here because readers poll that line */
    bool torn;             /* the last message was left unfinished: readers must be told */
    bool corrupt;          /* at the last scan a head was where no reader can be */
    uint64_t claim;        /* what is in the ring's claim as long as this writer has it */
};

/* Takes the ring for this writer. RING_TAKEN: another writer has it, and `*holder` is that one's
 * process. RING_CORRUPT: the ring's cursors can't be those of a writer and its readers. */
enum ring_result ring_writer_init(struct ring_writer *writer, struct ring *ring, uint32_t pid,
                                  uint32_t *holder);

/* Releases the ring for another writer, which continues where this one has stopped. */
void ring_writer_release(struct ring_writer *writer);

/* Where a record of `length` bytes may be written, or NULL with RING_AGAIN, _CLOSED, _POISONED or
 * _CORRUPT in `result`. Others see nothing of it yet. `length` is at most ring_max_record(). */
unsigned char *ring_claim(struct ring_writer *writer, uint32_t length, enum ring_result *result);
void ring_publish(struct ring_writer *writer, struct record_header header);

/* Appends up to `n` bytes of another ring of the same capacity, from the position ring_next() on. A
 * record is published when its last byte is there. Returns how many bytes it has taken: fewer than
 * `n` with RING_AGAIN, _CLOSED, _POISONED or _CORRUPT in `result`. */
uint64_t ring_append(struct ring_writer *writer, const unsigned char *bytes, uint64_t n,
                     enum ring_result *result);

/* Where the next appended byte goes. */
static inline uint64_t ring_next(const struct ring_writer *writer) {
    return writer->tail + writer->staged;
}

/* What the writer sleeps for: is there space for this record, or a reason not to wait for it? */
bool ring_writable(struct ring_writer *writer, uint32_t length);

/* Asks readers to wake the writer when a quarter of the ring is free, or as much as the record
 * needs if that is more. Readers may never free a quarter: wait for at most RING_PATIENCE_NS, and
 * then ask for just what the record needs, with ring_want_least(). */
void ring_want(struct ring_writer *writer, uint32_t length);
void ring_want_least(struct ring_writer *writer, uint32_t length);
enum { RING_PATIENCE_NS = 2 * 1000 * 1000 };

#endif
