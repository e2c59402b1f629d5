/* Delays at the points of hooks.h, where a wake-up could be lost: mostly none, so that all orders
 * of short and long ones meet. */
#include <sched.h>
#include <time.h>

#include "load.h"
#include "ring/hooks.h"
#include "scene.h"

static _Thread_local uint64_t random_state;

void delays_start(uint64_t seed) {
    random_state = mix(seed) | 1;
}

static uint64_t next_random(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    return random_state ^= random_state << 17;
}

static void be_busy(uint64_t ns) {
    uint64_t end = monotonic_ns() + ns;
    while (monotonic_ns() < end)
        ;
}

void test_hook(enum hook point) {
    (void)point;
    if (!random_state)
        return;
    uint64_t random = next_random() >> 16, percent = random % 100;
    if (percent < 70)
        return;
    if (percent < 88)
        sched_yield();
    else if (percent < 98)
        be_busy(1000 + random / 100 % 19000);
    else
        nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
}
