#include "ring/ring.h"

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
