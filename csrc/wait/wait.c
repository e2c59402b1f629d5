#include "wait/wait.h"

#include <sched.h>

static inline void pause_core(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

void wait_count(const struct waiter *waiter, enum counter number) {
    _Atomic uint64_t *counter = &waiter->counters[number];
    /* Only one thread writes, so a load and a store are enough. */
    uint64_t old = atomic_load_explicit(counter, memory_order_relaxed);
    atomic_store_explicit(counter, old + 1, memory_order_relaxed);
}

bool wait_spin(const struct waiter *waiter, uint64_t end_ns) {
    do {
        for (int i = 0; i < 8; i++) {
            if (waiter->ready(waiter->condition)) {
                wait_count(waiter, COUNT_SPINS);
                return true;
            }
            pause_core();
        }
    } while (monotonic_ns() < end_ns);
    return false;
}

static enum wait_result park(const struct waiter *waiter, uint64_t deadline_ns) {
    enum bell_result slept = BELL_RUNG;
    while (slept == BELL_RUNG) {
        uint32_t seen = bell_prepare(waiter->bell, waiter->bit);
        bool ready = waiter->ready(waiter->condition);
        if (!ready)
            slept = bell_sleep(waiter->bell, seen, deadline_ns);
        bell_leave(waiter->bell, waiter->bit);
        if (ready)
            return WAIT_READY;
    }
    if (waiter->ready(waiter->condition))
        return WAIT_READY;
    return slept == BELL_TIMEOUT ? WAIT_TIMEOUT : WAIT_SIGNAL;
}

bool wait_poll(const struct waiter *waiter, uint64_t end_ns) {
    do {
        if (waiter->ready(waiter->condition)) {
            wait_count(waiter, COUNT_YIELDS);
            return true;
        }
        sched_yield();
    } while (monotonic_ns() < end_ns);
    return false;
}

enum wait_result wait_until(const struct waiter *waiter, uint64_t yield_ns, uint64_t deadline_ns) {
    uint64_t end = monotonic_ns() + yield_ns;
    if (wait_poll(waiter, end < deadline_ns ? end : deadline_ns))
        return WAIT_READY;
    enum wait_result result = park(waiter, deadline_ns);
    wait_count(waiter, COUNT_PARKS);
    return result;
}
