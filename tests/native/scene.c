#include "scene.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "load.h"

enum { SPIN_NS = 2000, YIELD_NS = 20000 };

static int new_ring(uint64_t capacity, uint32_t n_readers) {
    int fd = memfd_create("ring", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, (off_t)ring_segment_bytes(capacity, n_readers)) != 0)
        side_fails("parent", "can't make a segment: %m");
    int error = ring_format(fd, capacity, n_readers);
    if (error)
        side_fails("parent", "can't format a ring: %s", strerror(error));
    return fd;
}

struct scene *scene_new(const struct options *options) {
    struct scene *scene =
        mmap(NULL, sizeof *scene, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (scene == MAP_FAILED)
        side_fails("parent", "can't map the scene: %m");
    scene->options = *options;
    scene->request_fd = new_ring(options->capacity, options->n_readers);
    for (uint32_t rank = 0; rank < options->n_readers; rank++)
        scene->reply_fds[rank] = new_ring(scene_reply_capacity(), 1);
    return scene;
}

static void map_ring(struct ring *ring, int fd, struct bell *data_bell, struct bell *space_bell) {
    int error = ring_map(ring, fd, data_bell, space_bell);
    if (error)
        side_fails("parent or side", "can't map a ring: %s", strerror(error));
}

void scene_map(const struct scene *scene, struct rings *rings) {
    struct bell *bell = (struct bell *)&scene->engine_bell;
    map_ring(&rings->request, scene->request_fd, NULL, bell);
    for (uint32_t rank = 0; rank < scene->options.n_readers; rank++)
        map_ring(&rings->replies[rank], scene->reply_fds[rank], bell, NULL);
}

uint64_t scene_seed(const struct scene *scene, uint32_t stream) {
    return mix(scene->options.seed + stream * UINT64_C(0x100000000));
}

uint64_t scene_reply_capacity(void) {
    return (uint64_t)sysconf(_SC_PAGESIZE);
}

void let_others_sleep(void) {
    nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
}

void side_is(struct side *side, enum doing doing) {
    atomic_store_explicit(&side->doing, doing, memory_order_relaxed);
}

void side_fails(const char *who, const char *format, ...) {
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fprintf(stderr, "stress: %s: %s\n", who, text);
    _exit(1);
}

void scene_wait(const struct scene *scene, struct side *side, enum doing doing,
                const struct waiter *waiter) {
    side_is(side, doing);
    bool park = scene->options.park;
    if (park || !wait_spin(waiter, monotonic_ns() + SPIN_NS))
        if (wait_until(waiter, park ? 0 : YIELD_NS, UINT64_MAX) != WAIT_READY)
            side_fails("wait_until", "ended without a deadline, and nobody sends signals");
    side_is(side, WORKS);
}

static void report_side(const char *name, uint32_t rank, const struct side *side) {
    static const char *const doings[] = {
        [STARTS] = "has not started",
        [WORKS] = "works",
        [WAITS_FOR_SPACE] = "waits for space in the request ring, or for replies",
        [WAITS_FOR_REPLIES] = "waits for replies, or the end of the reply rings",
        [WAITS_FOR_REQUEST] = "waits for a request",
        [WAITS_FOR_REPLY_SPACE] = "waits for space in its reply ring",
        [HAS_FINISHED] = "has finished",
    };
    fprintf(stderr, "  %s %" PRIu32 ": %s, at message %" PRIu64 ", parked %" PRIu64 " times\n",
            name, rank, doings[atomic_load(&side->doing)], atomic_load(&side->messages),
            atomic_load(&side->counters[COUNT_PARKS]));
}

static void report_bell(const char *name, struct bell *bell) {
    fprintf(stderr, "    %s: rung %" PRIu32 " times, parked %" PRIx64 "\n", name,
            atomic_load(&bell->rung), atomic_load(&bell->parked));
}

static void report_ring(const char *name, uint32_t rank, struct ring *ring) {
    struct ring_header *shared = ring->shared;
    fprintf(stderr, "  %s %" PRIu32 ": state %d, tail %" PRIu64 ", want %" PRIu64 ", heads", name,
            rank, (int)STATE_OF(ring_state_word(ring)), atomic_load(&shared->tail),
            atomic_load(&shared->want));
    for (uint32_t slot = 0; slot < ring->n_readers; slot++)
        fprintf(stderr, " %" PRIu64, atomic_load(&shared->readers[slot].head));
    fprintf(stderr, "\n");
    report_bell("data bell", ring->data_bell);
    report_bell("space bell", ring->space_bell);
}

void scene_report(const struct scene *scene, struct rings *rings) {
    report_side("engine", 0, &scene->engine);
    for (uint32_t rank = 0; rank < scene->options.n_readers; rank++)
        report_side("rank", rank, &scene->ranks[rank]);
    report_ring("request ring", 0, &rings->request);
    for (uint32_t rank = 0; rank < scene->options.n_readers; rank++)
        report_ring("reply ring", rank, &rings->replies[rank]);
}
