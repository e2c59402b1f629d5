#include "ring/reader.h"

#include <string.h>

#include "ring/hooks.h"

bool ring_attach(struct ring_reader *reader, struct ring *ring, uint32_t slot, uint32_t pid) {
    uint32_t expected = READER_FREE;
    if (slot >= ring->n_readers || !atomic_compare_exchange_strong_explicit(
                                       &ring->shared->readers[slot].status, &expected,
                                       READER_ATTACHED, memory_order_seq_cst, memory_order_seq_cst))
        return false;
    atomic_store_explicit(&ring->shared->readers[slot].pid, pid, memory_order_relaxed);
    reader->ring = ring;
    reader->slot = slot;
    reader->head = atomic_load_explicit(&ring->shared->readers[slot].head, memory_order_relaxed);
    reader->tail = reader->head;
    return true;
}

void ring_detach(struct ring_reader *reader) {
    uint32_t expected = READER_ATTACHED;
    atomic_compare_exchange_strong_explicit(&reader->ring->shared->readers[reader->slot].status,
                                            &expected, READER_FREE, memory_order_seq_cst,
                                            memory_order_seq_cst);
}

static bool has_record(struct ring_reader *reader) {
    if (reader->head != reader->tail)
        return true;
    /* Acquire: the records before this tail are complete. Sequentially consistent: a sleeping
     * reader's second check runs this. */
    reader->tail = atomic_load_explicit(&reader->ring->shared->tail, memory_order_seq_cst);
    return reader->head != reader->tail;
}

static bool is_dead(const struct ring_reader *reader) {
    return atomic_load_explicit(&reader->ring->shared->readers[reader->slot].status,
                                memory_order_seq_cst) == READER_DEAD;
}

bool ring_readable(struct ring_reader *reader) {
    return has_record(reader) || STATE_OF(ring_state_word(reader->ring)) != STATE_OPEN ||
           is_dead(reader);
}

enum ring_result ring_peek(struct ring_reader *reader, struct record *record) {
    /* Dead first: the writer may already have overwritten what this reader would read next. */
    if (is_dead(reader))
        return RING_DEAD;
    if (!has_record(reader)) {
        HOOK(HOOK_BEFORE_STATE);
        enum ring_state state = STATE_OF(ring_state_word(reader->ring));
        if (state == STATE_OPEN)
            return RING_AGAIN;
        /* The last record may have come between reading the tail and reading the state. */
        if (!has_record(reader))
            return state == STATE_CLOSED ? RING_CLOSED : RING_POISONED;
    }
    const unsigned char *at = reader->ring->data + (reader->head & (reader->ring->capacity - 1));
    uint64_t visible = reader->tail - reader->head;
    __builtin_prefetch(at + 64); /* the rest of a small record, at the same time */
    /* Copied once: others may change the original after the check. */
    memcpy(&record->header, at, sizeof record->header);
    if (visible > reader->ring->capacity || visible < sizeof record->header ||
        ring_record_bytes(record->header.length) > visible)
        return RING_CORRUPT;
    record->payload = at + sizeof record->header;
    return RING_OK;
}

void ring_release(struct ring_reader *reader, const struct record *record) {
    ring_release_to(reader, reader->head + ring_record_bytes(record->header.length));
}

void ring_release_to(struct ring_reader *reader, uint64_t position) {
    struct ring *ring = reader->ring;
    uint64_t old_head = reader->head;
    reader->head = position;
    /* Release: all reads of the record come before the writer's overwriting it. Sequentially
     * consistent: the load of `parked` can't be moved before it. */
    atomic_store_explicit(&ring->shared->readers[reader->slot].head, reader->head,
                          memory_order_seq_cst);
    HOOK(HOOK_BEFORE_NOTIFY);
    uint64_t parked = atomic_load_explicit(&ring->space_bell->parked, memory_order_seq_cst);
    if (!(parked & SPACE_BIT))
        return;
    /* Only the reader that crosses the wanted position rings: the writer may wait for others. */
    uint64_t want = atomic_load_explicit(&ring->shared->want, memory_order_seq_cst);
    if (old_head < want && want <= reader->head)
        bell_ring(ring->space_bell);
}
