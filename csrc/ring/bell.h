/* The doorbell: an eventcount on a futex. No wake-up is lost if the sleeper keeps the order
 *
 *     seen = bell_prepare(bell, bit);  check again;
 *     bell_sleep(bell, seen, …);  bell_leave(bell, bit)
 *
 * and the waker makes its change with a sequentially consistent store before bell_notify().
 * README.md has the argument. Any thread of any process that maps the bell may call these; a bit
 * belongs to one sleeping thread at a time. */
#ifndef MPSPMD_RING_BELL_H
#define MPSPMD_RING_BELL_H

#include "ring/clock.h"
#include "ring/layout.h"

enum bell_result { BELL_RUNG, BELL_TIMEOUT, BELL_SIGNAL };

uint32_t bell_prepare(struct bell *bell, uint64_t bit);

/* Sleeps unless the bell was rung since `seen`; at most until `deadline_ns` of CLOCK_MONOTONIC. */
enum bell_result bell_sleep(struct bell *bell, uint32_t seen, uint64_t deadline_ns);

void bell_leave(struct bell *bell, uint64_t bit);

/* Wakes every sleeper: one system call. */
void bell_ring(struct bell *bell);

/* Rings if anybody whose bit is in `mask` sleeps: no system call while everybody is awake. */
void bell_notify(struct bell *bell, uint64_t mask);

#endif
