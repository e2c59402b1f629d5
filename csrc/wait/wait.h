/* How to wait: poll, yield for a while, then sleep on a bell until it rings. */
#ifndef MPSPMD_WAIT_WAIT_H
#define MPSPMD_WAIT_WAIT_H

#include <stdbool.h>

#include "ring/bell.h"

enum wait_result { WAIT_READY, WAIT_TIMEOUT, WAIT_SIGNAL };

struct waiter {
    struct bell *bell;
    uint64_t bit; /* this thread's in bell->parked */
    bool (*ready)(void *condition);
    void *condition;
    _Atomic uint64_t *counters; /* N_COUNTERS: each wait is counted by how it ended */
};

/* Adds 1. Only one thread writes, any may read. */
void wait_count(const struct waiter *waiter, enum counter counter);

/* Polls until `end_ns` of CLOCK_MONOTONIC, without giving up the core. True when ready. */
bool wait_spin(const struct waiter *waiter, uint64_t end_ns);

/* Polls until `end_ns`, and gives up the core between polls: the peer may need this core. True when
 * ready. */
bool wait_poll(const struct waiter *waiter, uint64_t end_ns);

/* Polls for `yield_ns` as wait_poll(), then sleeps until the bell rings. Returns at the deadline
 * (CLOCK_MONOTONIC), on a signal, or when ready. */
enum wait_result wait_until(const struct waiter *waiter, uint64_t yield_ns, uint64_t deadline_ns);

#endif
