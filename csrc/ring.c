#include "ring.h"

#include <string.h>

#include "hooks.h"

static uint64_t record_bytes(uint32_t length) {
    uint64_t bytes = sizeof(struct record_header) + (uint64_t)length;
    return (bytes + RECORD_ALIGN - 1) & ~(uint64_t)(RECORD_ALIGN - 1);
}

uint32_t ring_max_record(const struct ring *ring) {
    return (uint32_t)(ring->capacity / 2 - sizeof(struct record_header));
}

uint64_t ring_state_word(const struct ring *ring) {
    return atomic_load_explicit(&ring->shared->state, memory_order_seq_cst);
}

/* Open goes to closed or poisoned, closed goes to poisoned, poisoned stays: a plain store by a
 * late caller would erase the reason. */
static void end_ring(struct ring *ring, uint64_t ended) {
    uint64_t word = ring_state_word(ring);
    while (STATE_OF(word) < STATE_OF(ended) &&
           !atomic_compare_exchange_weak_explicit(&ring->shared->state, &word, ended,
                                                  memory_order_seq_cst, memory_order_seq_cst))
        ;
    bell_ring(ring->data_bell);
    bell_ring(ring->space_bell);
}

void ring_close(struct ring *ring) {
    end_ring(ring, STATE_PACK(STATE_CLOSED, 0, 0));
}

void ring_poison(struct ring *ring, uint16_t code, int32_t rank) {
    end_ring(ring, STATE_PACK(STATE_POISONED, code, rank));
}

void ring_mark_dead(struct ring *ring, uint32_t slot) {
    _Atomic uint32_t *status = &ring->shared->readers[slot].status;
    uint32_t old = atomic_load_explicit(status, memory_order_seq_cst);
    while (old != READER_DEAD &&
           !atomic_compare_exchange_weak_explicit(status, &old, READER_DEAD, memory_order_seq_cst,
                                                  memory_order_seq_cst))
        ;
    bell_leave(ring->data_bell, UINT64_C(1) << slot);
    bell_ring(ring->data_bell);
    bell_ring(ring->space_bell);
}

/* How far the slowest living reader is behind the tail; more than the capacity if a head is where
 * no reader can be. */
static uint64_t scan_heads(const struct ring_writer *writer) {
    const struct ring *ring = writer->ring;
    uint64_t farthest = 0;
    for (uint32_t slot = 0; slot < ring->n_readers; slot++) {
        if (atomic_load_explicit(&ring->shared->readers[slot].status, memory_order_seq_cst) ==
            READER_DEAD)
            continue;
        /* Pairs with the store in ring_release(): the reader has read what lies before. Also
         * sequentially consistent, because the sleeping writer's second look ends up here. */
        uint64_t head =
            atomic_load_explicit(&ring->shared->readers[slot].head, memory_order_seq_cst);
        uint64_t behind = head <= writer->tail ? writer->tail - head : UINT64_MAX;
        if (behind > farthest)
            farthest = behind;
    }
    return farthest;
}

/* Once a lap: not a part of what each message takes. */
__attribute__((noinline)) static void update_limit(struct ring_writer *writer) {
    uint64_t behind = scan_heads(writer), capacity = writer->ring->capacity;
    writer->corrupt = behind > capacity;
    if (!writer->corrupt)
        writer->limit = writer->tail + capacity - behind;
}

static bool has_space(struct ring_writer *writer, uint64_t need) {
    if (writer->tail + need <= writer->limit)
        return true;
    update_limit(writer);
    return writer->tail + need <= writer->limit;
}

/* One writer wins: the others' compare-and-swap finds the winner's word. */
static bool take_claim(struct ring_writer *writer, _Atomic uint64_t *claim, uint64_t *found) {
    *found = atomic_load_explicit(claim, memory_order_relaxed);
    do {
        if (CLAIM_OF(*found) != CLAIM_FREE && CLAIM_OF(*found) != CLAIM_TORN)
            return false;
        /* Acquire: pairs with the release in ring_writer_release(). The tail below is the last that
         * the writer before has stored, and its last bytes lie before this writer's. */
    } while (!atomic_compare_exchange_weak_explicit(claim, found, writer->claim,
                                                    memory_order_seq_cst, memory_order_relaxed));
    return true;
}

enum ring_result ring_writer_init(struct ring_writer *writer, struct ring *ring, uint32_t pid,
                                  uint32_t *holder) {
    uint64_t found;
    *writer = (struct ring_writer){.claim = CLAIM_BY(pid)};
    if (!take_claim(writer, &ring->shared->claim, &found)) {
        *holder = CLAIM_PID(found);
        return RING_TAKEN;
    }
    writer->ring = ring;
    writer->tail = atomic_load_explicit(&ring->shared->tail, memory_order_relaxed);
    writer->limit = writer->tail;
    writer->torn = CLAIM_OF(found) == CLAIM_TORN;
    if (writer->tail % RECORD_ALIGN == 0 && scan_heads(writer) <= ring->capacity)
        return RING_OK;
    ring_writer_release(writer);
    return RING_CORRUPT;
}

void ring_writer_release(struct ring_writer *writer) {
    uint64_t own = writer->claim, left = writer->torn ? CLAIM_TORN : CLAIM_FREE;
    /* Release: all that this writer has stored in the ring comes before what the next one stores. A
     * word that isn't this writer's own stays as it is. */
    atomic_compare_exchange_strong_explicit(&writer->ring->shared->claim, &own, left,
                                            memory_order_seq_cst, memory_order_relaxed);
    writer->ring = NULL;
}

unsigned char *ring_claim(struct ring_writer *writer, uint32_t length, enum ring_result *result) {
    enum ring_state state = STATE_OF(ring_state_word(writer->ring));
    if (state != STATE_OPEN)
        *result = state == STATE_CLOSED ? RING_CLOSED : RING_POISONED;
    else if (!has_space(writer, record_bytes(length)))
        *result = writer->corrupt ? RING_CORRUPT : RING_AGAIN;
    else
        return writer->ring->data + (writer->tail & (writer->ring->capacity - 1)) +
               sizeof(struct record_header);
    return NULL;
}

/* To have a cache line for writing takes as long as to hand one over, and it is in a reader's cache
 * since the last lap. */
static inline void prefetch_to_write(const void *line) {
#if defined(__x86_64__)
    __asm__ __volatile__("prefetchw %0" ::"m"(*(const char *)line));
#else
    __builtin_prefetch(line, 1);
#endif
}

void ring_publish(struct ring_writer *writer, struct record_header header) {
    struct ring *ring = writer->ring;
    memcpy(ring->data + (writer->tail & (ring->capacity - 1)), &header, sizeof header);
    writer->tail += record_bytes(header.length);
    /* Release: the record is complete for whoever sees this tail. Sequentially consistent: the
     * load of `parked` in bell_notify() can't be moved before it, or a reader that parks in
     * between would be missed. */
    atomic_store_explicit(&ring->shared->tail, writer->tail, memory_order_seq_cst);
    /* Only now: to ask for the time takes a good part of what a message takes. */
    atomic_store_explicit(&ring->shared->published_ns, monotonic_ns(), memory_order_relaxed);
    bell_notify(ring->data_bell, UINT64_MAX);
    /* What the next small record takes. */
    const unsigned char *next = ring->data + (writer->tail & (ring->capacity - 1));
    prefetch_to_write(next);
    prefetch_to_write(next + 64);
}

bool ring_writable(struct ring_writer *writer, uint32_t length) {
    return STATE_OF(ring_state_word(writer->ring)) != STATE_OPEN ||
           has_space(writer, record_bytes(length)) || writer->corrupt;
}

static void want_free(struct ring_writer *writer, uint64_t free_bytes) {
    uint64_t want = writer->tail + free_bytes - writer->ring->capacity;
    atomic_store_explicit(&writer->ring->shared->want, want, memory_order_seq_cst);
}

void ring_want(struct ring_writer *writer, uint32_t length) {
    /* Ask for a quarter of the ring where the record needs less: a reader that frees one small
     * record at a time would otherwise ring for each. */
    uint64_t free_bytes = record_bytes(length), quarter = writer->ring->capacity / 4;
    if (free_bytes < quarter)
        free_bytes = quarter;
    want_free(writer, free_bytes);
}

void ring_want_least(struct ring_writer *writer, uint32_t length) {
    want_free(writer, record_bytes(length));
}

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
    /* Acquire: the records before this tail are complete. Sequentially consistent, because the
     * sleeping reader's second look ends up here. */
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
        enum ring_state state = STATE_OF(ring_state_word(reader->ring));
        if (state == STATE_OPEN)
            return RING_AGAIN;
        /* The last record may have come between the look at the tail and the look at the state. */
        if (!has_record(reader))
            return state == STATE_CLOSED ? RING_CLOSED : RING_POISONED;
    }
    const unsigned char *at = reader->ring->data + (reader->head & (reader->ring->capacity - 1));
    uint64_t visible = reader->tail - reader->head;
    __builtin_prefetch(at + 64); /* of a small record the rest, at the same time */
    /* Copied once, then checked: what is checked is what is used. */
    memcpy(&record->header, at, sizeof record->header);
    if (visible > reader->ring->capacity || visible < sizeof record->header ||
        record_bytes(record->header.length) > visible)
        return RING_CORRUPT;
    record->payload = at + sizeof record->header;
    return RING_OK;
}

void ring_release(struct ring_reader *reader, const struct record *record) {
    struct ring *ring = reader->ring;
    uint64_t old_head = reader->head;
    reader->head += record_bytes(record->header.length);
    /* Release: all reads of the record come before the writer's overwriting it. Sequentially
     * consistent: the load of `parked` can't be moved before it. */
    atomic_store_explicit(&ring->shared->readers[reader->slot].head, reader->head,
                          memory_order_seq_cst);
    HOOK(HOOK_BEFORE_NOTIFY);
    uint64_t parked = atomic_load_explicit(&ring->space_bell->parked, memory_order_seq_cst);
    if (!(parked & SPACE_BIT))
        return;
    /* Only who crosses the wanted position rings, and once: the writer may wait for others. */
    uint64_t want = atomic_load_explicit(&ring->shared->want, memory_order_seq_cst);
    if (old_head < want && want <= reader->head)
        bell_ring(ring->space_bell);
}
