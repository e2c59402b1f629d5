#include "ring/writer.h"

#include <string.h>

#include "ring/hooks.h"

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
         * sequentially consistent: a sleeping writer's second check runs this. */
        uint64_t head =
            atomic_load_explicit(&ring->shared->readers[slot].head, memory_order_seq_cst);
        uint64_t behind = head <= writer->tail ? writer->tail - head : UINT64_MAX;
        if (behind > farthest)
            farthest = behind;
    }
    return farthest;
}

/* Not inlined: it runs once a lap, and would slow down each message. */
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

/* Only one writer succeeds: the others' compare-and-swap finds that one's word. */
static bool take_claim(struct ring_writer *writer, _Atomic uint64_t *claim, uint64_t *found) {
    *found = atomic_load_explicit(claim, memory_order_relaxed);
    do {
        if (CLAIM_OF(*found) != CLAIM_FREE && CLAIM_OF(*found) != CLAIM_TORN)
            return false;
        HOOK(HOOK_BEFORE_CLAIM);
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
    /* Release: this writer's stores in the ring come before the next writer's. A claim that isn't
     * this writer's stays as it is. */
    atomic_compare_exchange_strong_explicit(&writer->ring->shared->claim, &own, left,
                                            memory_order_seq_cst, memory_order_relaxed);
    writer->ring = NULL;
}

unsigned char *ring_claim(struct ring_writer *writer, uint32_t length, enum ring_result *result) {
    enum ring_state state = STATE_OF(ring_state_word(writer->ring));
    if (state != STATE_OPEN)
        *result = state == STATE_CLOSED ? RING_CLOSED : RING_POISONED;
    else if (!has_space(writer, ring_record_bytes(length)))
        *result = writer->corrupt ? RING_CORRUPT : RING_AGAIN;
    else
        return writer->ring->data + (writer->tail & (writer->ring->capacity - 1)) +
               sizeof(struct record_header);
    return NULL;
}

/* The line is in a reader's cache since the last lap. Fetching it for writing takes as long as
 * passing a line to a reader. */
static inline void prefetch_to_write(const void *line) {
#if defined(__x86_64__)
    __asm__ __volatile__("prefetchw %0" ::"m"(*(const char *)line));
#else
    __builtin_prefetch(line, 1);
#endif
}

/* Shows readers the next `bytes`, which are whole records. */
static inline void publish(struct ring_writer *writer, uint64_t bytes) {
    struct ring *ring = writer->ring;
    writer->tail += bytes;
    /* Release: the record is complete for whoever sees this tail. Sequentially consistent: the
     * load of `parked` in bell_notify() can't be moved before it, or a reader that parks in
     * between would be missed. */
    atomic_store_explicit(&ring->shared->tail, writer->tail, memory_order_seq_cst);
    /* Only now, because reading the clock would delay the message. */
    writer->published_ns = monotonic_ns();
    atomic_store_explicit(&ring->shared->published_ns, writer->published_ns, memory_order_relaxed);
    bell_notify(ring->data_bell, UINT64_MAX);
}

void ring_publish(struct ring_writer *writer, struct record_header header) {
    struct ring *ring = writer->ring;
    memcpy(ring->data + (writer->tail & (ring->capacity - 1)), &header, sizeof header);
    publish(writer, ring_record_bytes(header.length));
    /* The two lines of the next small record. */
    const unsigned char *next = ring->data + (writer->tail & (ring->capacity - 1));
    prefetch_to_write(next);
    prefetch_to_write(next + 64);
}

/* The bytes of whole records at the beginning of what is staged; more than that is there if a
 * record claims to be larger than any can be. */
static uint64_t whole_records(const struct ring_writer *writer) {
    const struct ring *ring = writer->ring;
    struct record_header header;
    uint64_t whole = 0;
    while (writer->staged - whole >= sizeof header) {
        memcpy(&header, ring->data + ((writer->tail + whole) & (ring->capacity - 1)),
               sizeof header);
        uint64_t record = ring_record_bytes(header.length);
        if (header.length > ring_max_record(ring))
            return UINT64_MAX;
        if (writer->staged - whole < record)
            break;
        whole += record;
    }
    return whole;
}

uint64_t ring_append(struct ring_writer *writer, const unsigned char *bytes, uint64_t n,
                     enum ring_result *result) {
    struct ring *ring = writer->ring;
    enum ring_state state = STATE_OF(ring_state_word(ring));
    if (state != STATE_OPEN) {
        *result = state == STATE_CLOSED ? RING_CLOSED : RING_POISONED;
        return 0;
    }
    uint64_t next = ring_next(writer), taken = n;
    if (next + n > writer->limit)
        update_limit(writer);
    if (next + n > writer->limit)
        taken = writer->limit - next;
    memcpy(ring->data + (next & (ring->capacity - 1)), bytes, taken);
    writer->staged += taken;
    uint64_t whole = whole_records(writer);
    if (writer->corrupt || whole > writer->staged) {
        *result = RING_CORRUPT;
        return 0;
    }
    if (whole > 0) {
        writer->staged -= whole;
        publish(writer, whole);
    }
    *result = taken == n ? RING_OK : RING_AGAIN;
    return taken;
}

bool ring_writable(struct ring_writer *writer, uint32_t length) {
    return STATE_OF(ring_state_word(writer->ring)) != STATE_OPEN ||
           has_space(writer, ring_record_bytes(length)) || writer->corrupt;
}

static void want_free(struct ring_writer *writer, uint64_t free_bytes) {
    uint64_t want = writer->tail + free_bytes - writer->ring->capacity;
    atomic_store_explicit(&writer->ring->shared->want, want, memory_order_seq_cst);
}

void ring_want(struct ring_writer *writer, uint32_t length) {
    /* Ask for a quarter of the ring where the record needs less: a reader that frees one small
     * record at a time would otherwise ring for each. */
    uint64_t free_bytes = ring_record_bytes(length), quarter = writer->ring->capacity / 4;
    if (free_bytes < quarter)
        free_bytes = quarter;
    want_free(writer, free_bytes);
}

void ring_want_least(struct ring_writer *writer, uint32_t length) {
    want_free(writer, ring_record_bytes(length));
}
