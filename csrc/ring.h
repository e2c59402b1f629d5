/* The ring: one writer, n readers, variable-length records, no lock.
 *
 * Every reader sees every record, in order. A record is contiguous, because the data is mapped
 * twice, back to back. Nothing here waits, and nothing here allocates: a call that can't go on
 * says RING_AGAIN, and wait.h knows how to wait. No Python. README.md argues the memory ordering.
 */
#ifndef MPSPMD_RING_H
#define MPSPMD_RING_H

#include <stdbool.h>
#include <stddef.h>

#include "bell.h"

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

/* One process's mapping of a ring. Any thread may use it, but see the writer and the reader. What
 * is in here was checked when the segment was mapped; the header's copy of it is never read again,
 * because others may write there. */
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

bool ring_shape_is_valid(uint64_t capacity, uint32_t n_readers);
size_t ring_segment_bytes(uint64_t capacity, uint32_t n_readers);

/* Writes the header into a segment of zeros. 0, or an errno value. */
int ring_format(int fd, uint64_t capacity, uint32_t n_readers);

/* Maps a formatted segment; the bells stay the ring's own where NULL is given. Every mapping of a
 * ring, in whatever process, must be given the same bells. 0, or an errno value: EPROTO when the
 * segment isn't a ring of this version, EINVAL when readers would share a bell's bits: only a ring
 * of one reader may have its data bell elsewhere. */
int ring_map(struct ring *ring, int fd, struct bell *data_bell, struct bell *space_bell);
void ring_unmap(struct ring *ring);

/* The cursors of a ring that somebody else uses, without mapping it. `heads` has room for
 * RING_MAX_READERS. 0, or an errno value: EPROTO when the segment isn't a ring of this version. */
int ring_look(int fd, uint64_t *capacity, uint32_t *n_readers, uint64_t *tail, uint64_t *heads);

/* No more records: readers drain what is there, then get RING_CLOSED. Any process may call. */
void ring_close(struct ring *ring);

/* The same, with a reason; beats close and is final: the first reason stays. */
void ring_poison(struct ring *ring, uint16_t code, int32_t rank);

/* The writer no longer waits for this reader. Only for a process that is known to be gone. */
void ring_mark_dead(struct ring *ring, uint32_t slot);

uint64_t ring_state_word(const struct ring *ring);

/* The writing end: one for each ring, and one thread at a time. */
struct ring_writer {
    struct ring *ring; /* NULL: this writer has no ring */
    uint64_t tail;     /* where the next record goes: shared tail, kept here so as not to load it */
    uint64_t limit;    /* the tail may go up to here: smallest head at the last scan + capacity */
    bool torn;         /* the last message was left unfinished: readers must be told */
    bool corrupt;      /* at the last scan a head was where no reader can be */
    uint64_t claim;    /* what is in the ring's claim as long as this writer has it */
};

/* Takes the ring for this writer. RING_TAKEN: another writer has it, and `*holder` is that one's
 * process. RING_CORRUPT: the ring's cursors can't be those of a writer and its readers. */
enum ring_result ring_writer_init(struct ring_writer *writer, struct ring *ring, uint32_t pid,
                                  uint32_t *holder);

/* Gives the ring back for another writer, which goes on where this one has stopped. */
void ring_writer_release(struct ring_writer *writer);

/* Where a record of `length` bytes may be written, or NULL with RING_AGAIN, _CLOSED, _POISONED or
 * _CORRUPT in `result`. Others see nothing of it yet. `length` is at most ring_max_record(). */
unsigned char *ring_claim(struct ring_writer *writer, uint32_t length, enum ring_result *result);
void ring_publish(struct ring_writer *writer, struct record_header header);

/* What the writer sleeps for: is there space for this record, or a reason not to wait for it? */
bool ring_writable(struct ring_writer *writer, uint32_t length);

/* Readers wake the writer when a quarter of the ring is free, or the record fits if that needs
 * more. That may take any time: wait for it for RING_PATIENCE_NS at most, and then ask for
 * what the record needs, with ring_want_least(). */
void ring_want(struct ring_writer *writer, uint32_t length);
void ring_want_least(struct ring_writer *writer, uint32_t length);
enum { RING_PATIENCE_NS = 2 * 1000 * 1000 };

/* The longest record, in payload bytes: half of the ring. */
uint32_t ring_max_record(const struct ring *ring);

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

/* What the reader sleeps for: a record, or a reason not to wait for one. */
bool ring_readable(struct ring_reader *reader);

#endif
