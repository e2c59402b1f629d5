#include "ring/bell.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "ring/hooks.h"

/* Never FUTEX_PRIVATE: the word is shared between processes. */
static long futex(_Atomic uint32_t *word, int operation, uint32_t value,
                  const struct timespec *deadline) {
    return syscall(SYS_futex, word, operation, value, deadline, NULL, FUTEX_BITSET_MATCH_ANY);
}

uint32_t bell_prepare(struct bell *bell, uint64_t bit) {
    /* Before the load and before the caller's second check: whoever changes something after that
     * check sees the bit and rings. */
    atomic_fetch_or_explicit(&bell->parked, bit, memory_order_seq_cst);
    HOOK(HOOK_PARKED_SET);
    return atomic_load_explicit(&bell->rung, memory_order_seq_cst);
}

enum bell_result bell_sleep(struct bell *bell, uint32_t seen, uint64_t deadline_ns) {
    HOOK(HOOK_BEFORE_SLEEP);
    struct timespec deadline = {.tv_sec = (time_t)(deadline_ns / 1000000000),
                                .tv_nsec = (long)(deadline_ns % 1000000000)};
    if (futex(&bell->rung, FUTEX_WAIT_BITSET, seen, &deadline) == 0 || errno == EAGAIN)
        return BELL_RUNG;
    return errno == ETIMEDOUT ? BELL_TIMEOUT : BELL_SIGNAL;
}

void bell_leave(struct bell *bell, uint64_t bit) {
    atomic_fetch_and_explicit(&bell->parked, ~bit, memory_order_seq_cst);
}

void bell_ring(struct bell *bell) {
    /* The increment comes first: a sleeper that hasn't reached the kernel yet finds a changed value
     * there, and stays awake. */
    atomic_fetch_add_explicit(&bell->rung, 1, memory_order_seq_cst);
    HOOK(HOOK_BEFORE_WAKE);
    futex(&bell->rung, FUTEX_WAKE_BITSET, INT_MAX, NULL);
}

void bell_notify(struct bell *bell, uint64_t mask) {
    HOOK(HOOK_BEFORE_NOTIFY);
    if (atomic_load_explicit(&bell->parked, memory_order_seq_cst) & mask)
        bell_ring(bell);
}
