#include "wait.h"

#include <sched.h>

static inline void pause_core(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

static void count(_Atomic uint64_t *counter) {
    /* One thread writes, so load and store do; readers only must not see half a number. */
    uint64_t old = atomic_load_explicit(counter, memory_order_relaxed);
    atomic_store_explicit(counter, old + 1, memory_order_relaxed);
}

bool wait_spin(const struct waiter *waiter, uint64_t spin_ns) {
    uint64_t end = monotonic_ns() + spin_ns;
    do {
        for (int i = 0; i < 8; i++) {
            if (waiter->ready(waiter->condition)) {
                count(waiter->counts.spins);
                return true;
            }
            pause_core();
        }
    } while (monotonic_ns() < end);
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

enum wait_result wait_until(const struct waiter *waiter, uint64_t yield_ns, uint64_t deadline_ns) {
    /* The peer may need this very core: pausing without yielding would keep it from its work. */
    uint64_t end = monotonic_ns() + yield_ns;
    if (end > deadline_ns)
        end = deadline_ns;
    do {
        if (waiter->ready(waiter->condition)) {
            count(waiter->counts.yields);
            return WAIT_READY;
        }
        sched_yield();
    } while (monotonic_ns() < end);
    enum wait_result result = park(waiter, deadline_ns);
    count(waiter->counts.parks);
    return result;
}
