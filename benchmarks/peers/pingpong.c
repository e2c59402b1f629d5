/* Two processes that hand a payload back and forth through shared memory: what the machine allows.
 * Each side has a cache line of its own, with the number of its last message, that only it writes. */
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

enum { LINE = 128, PATIENCE = 10000, GRACE_NS = 2000000000 };

struct shared {
    _Alignas(LINE) _Atomic uint64_t engine;
    int64_t size; /* of the payload; negative: the rank shall leave */
    _Alignas(LINE) _Atomic uint64_t rank;
    _Alignas(LINE) char payload[];
};

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

/* Spins; later yields: two processes on one core would wait for each other's time slice to end. */
static bool await_number(_Atomic uint64_t *number, uint64_t wanted, int64_t deadline_ns) {
    for (unsigned looks = 0; atomic_load_explicit(number, memory_order_acquire) != wanted; looks++)
        if (looks > PATIENCE) {
            sched_yield();
            if (now_ns() > deadline_ns)
                return false;
        }
    return true;
}

/* Times `messages` round trips. Returns how many it made in `limit_ns`, or -1 if no answer came. */
int64_t engine_loop(struct shared *shared, const char *payload, int64_t size, int64_t messages,
                    int64_t limit_ns, int64_t *taken_ns) {
    uint64_t number = atomic_load(&shared->engine);
    int64_t end = now_ns() + limit_ns;
    shared->size = size;
    for (int64_t i = 0; i < messages; i++) {
        int64_t began = now_ns();
        if (size > 0)
            memcpy(shared->payload, payload, (size_t)size);
        atomic_store_explicit(&shared->engine, ++number, memory_order_release);
        if (!await_number(&shared->rank, number, end + GRACE_NS))
            return -1;
        int64_t ended = now_ns();
        taken_ns[i] = ended - began;
        if (ended > end)
            return i + 1;
    }
    return messages;
}

/* Answers until told to leave, copying each payload into `copy`. */
void rank_loop(struct shared *shared, char *copy) {
    for (uint64_t number = 1;; number++) {
        await_number(&shared->engine, number, INT64_MAX);
        int64_t size = shared->size;
        if (size > 0)
            memcpy(copy, shared->payload, (size_t)size);
        atomic_store_explicit(&shared->rank, number, memory_order_release);
        if (size < 0)
            return;
    }
}
