/* One writer for each ring, and what its successor goes on with. */
#include <pthread.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "fixture.h"

static void a_second_writer_is_refused_and_told_who_the_first_is(void) {
    struct fixture f;
    struct ring_writer second;
    uint32_t holder = 0;
    open_ring(&f, page_size(), 1);
    CHECK_EQUAL(ring_writer_init(&second, &f.ring, 7, &holder), RING_TAKEN);
    CHECK_EQUAL(holder, getpid());
    CHECK(second.ring == NULL);
    CHECK_EQUAL(put(&f, 8, 'a'), RING_OK);
    take(&f, 0, 8, 'a');
    ring_writer_release(&f.writer);
    CHECK_EQUAL(ring_writer_init(&second, &f.ring, 7, &holder), RING_OK);
    CHECK_EQUAL(ring_writer_init(&f.writer, &f.ring, 8, &holder), RING_TAKEN);
    CHECK_EQUAL(holder, 7);
}

static struct ring *contested;
static struct ring_writer faster;

static void claim_first(enum hook point) {
    uint32_t holder;
    if (point != HOOK_BEFORE_CLAIM)
        return;
    on_hook = NULL;
    CHECK_EQUAL(ring_writer_init(&faster, contested, 7, &holder), RING_OK);
}

static void of_two_that_find_a_ring_free_the_slower_is_refused(void) {
    struct fixture f;
    struct ring_writer slower;
    uint32_t holder = 0;
    open_ring(&f, page_size(), 1);
    ring_writer_release(&f.writer);
    contested = &f.ring;
    on_hook = claim_first;
    CHECK_EQUAL(ring_writer_init(&slower, &f.ring, 8, &holder), RING_TAKEN);
    CHECK(on_hook == NULL);
    CHECK_EQUAL(holder, 7);
    CHECK_EQUAL(CLAIM_PID(atomic_load(&f.ring.shared->claim)), 7);
}

static void a_claim_of_garbage_is_nobodys_to_take(void) {
    uint64_t words[] = {3, 0xffff, UINT64_MAX};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        struct fixture f;
        uint32_t holder;
        open_ring(&f, page_size(), 1);
        atomic_store(&f.ring.shared->claim, words[i]);
        ring_writer_release(&f.writer); /* not its own word any more */
        CHECK_EQUAL(atomic_load(&f.ring.shared->claim), words[i]);
        CHECK_EQUAL(ring_writer_init(&f.writer, &f.ring, 1, &holder), RING_TAKEN);
    }
}

static void the_ring_of_a_killed_writer_stays_taken(void) {
    struct fixture f;
    struct ring_writer writer;
    uint32_t holder;
    open_ring(&f, page_size(), 1);
    ring_writer_release(&f.writer);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) { /* maps the ring for itself, as its mapping is not inherited */
        struct ring own;
        CHECK_EQUAL(ring_map(&own, f.fd, NULL, NULL), 0);
        open_writer(&writer, &own);
        _exit(0);
    }
    int status;
    CHECK_EQUAL(waitpid(child, &status, 0), child);
    CHECK_EQUAL(status, 0);
    CHECK_EQUAL(ring_writer_init(&writer, &f.ring, 1, &holder), RING_TAKEN);
    CHECK_EQUAL(holder, child);
}

/* What a reader gets next: the whole record of so many bytes, after an abort or not. */
static void expect_next(struct fixture *f, struct incoming *in, bool aborted, uint32_t length) {
    enum ring_result result = message_receive(&f->readers[0], in);
    if (aborted) {
        CHECK_EQUAL(result, RING_ABORTED);
        message_take(in);
        result = message_receive(&f->readers[0], in);
    }
    CHECK_EQUAL(result, RING_OK);
    CHECK_EQUAL(in->record.header.length, length);
    ring_release(&f->readers[0], &in->record);
}

static void send_small(struct fixture *f, uint32_t length) {
    static unsigned char bytes[64];
    struct iovec part = {bytes, length};
    struct outgoing out;
    message_begin(&out, &part, 1, 1, 1);
    CHECK_EQUAL(message_send(&f->writer, &out), RING_OK);
}

/* Leaves a message unfinished. */
static void tear(struct fixture *f, struct incoming *in, unsigned char *bytes, size_t length) {
    struct iovec part = {bytes, length};
    struct outgoing out;
    message_begin(&out, &part, 1, 1, 1);
    CHECK_EQUAL(message_send(&f->writer, &out), RING_AGAIN);
    message_abandon(&f->writer, &out);
    CHECK_EQUAL(message_receive(&f->readers[0], in), RING_NEED_BUFFER);
    in->buffer = bytes;
    CHECK_EQUAL(message_receive(&f->readers[0], in), RING_AGAIN);
}

static void a_successor_tells_readers_that_a_message_stays_unfinished(void) {
    static unsigned char bytes[1 << 16];
    struct fixture f;
    struct incoming in = {0};
    open_ring(&f, page_size(), 1);
    tear(&f, &in, bytes, 3 * page_size());
    ring_writer_release(&f.writer);
    open_writer(&f.writer, &f.ring);
    send_small(&f, 24);
    expect_next(&f, &in, true, 24);
    ring_writer_release(&f.writer); /* told once */
    open_writer(&f.writer, &f.ring);
    send_small(&f, 16);
    expect_next(&f, &in, false, 16);
}

static void a_successor_that_writes_nothing_passes_it_on(void) {
    static unsigned char bytes[1 << 16];
    struct fixture f;
    struct incoming in = {0};
    open_ring(&f, page_size(), 1);
    tear(&f, &in, bytes, 3 * page_size());
    for (int i = 0; i < 3; i++) {
        ring_writer_release(&f.writer);
        open_writer(&f.writer, &f.ring);
    }
    send_small(&f, 24);
    expect_next(&f, &in, true, 24);
}

enum { RACERS = 4, TURNS = 100 };

struct race {
    struct ring *ring;
    pthread_barrier_t start;
    _Atomic int inside;
};

/* Writes bytes that it does not publish: with nothing between the writers but the claim,
 * ThreadSanitizer sees whether the one's stores come before the other's. */
static void take_a_turn(struct race *race) {
    struct ring_writer writer;
    enum ring_result result;
    uint32_t holder;
    while (ring_writer_init(&writer, race->ring, 1, &holder) != RING_OK)
        sched_yield();
    CHECK_EQUAL(atomic_fetch_add_explicit(&race->inside, 1, memory_order_relaxed), 0);
    unsigned char *payload = ring_claim(&writer, 64, &result);
    CHECK(payload != NULL);
    payload[0] = payload[63] = 'x'; /* of a memset that the compiler expands it sees nothing */
    atomic_fetch_sub_explicit(&race->inside, 1, memory_order_relaxed);
    ring_writer_release(&writer);
    sched_yield();
}

static void *take_turns(void *race) {
    pthread_barrier_wait(&((struct race *)race)->start);
    for (int turn = 0; turn < TURNS; turn++)
        take_a_turn(race);
    return NULL;
}

static void of_many_that_come_at_once_one_writes_at_a_time(void) {
    struct fixture f;
    pthread_t racers[RACERS];
    open_ring(&f, page_size(), 1);
    ring_writer_release(&f.writer);
    struct race race = {.ring = &f.ring};
    CHECK_EQUAL(pthread_barrier_init(&race.start, NULL, RACERS), 0);
    for (int i = 0; i < RACERS; i++)
        CHECK_EQUAL(pthread_create(&racers[i], NULL, take_turns, &race), 0);
    for (int i = 0; i < RACERS; i++)
        CHECK_EQUAL(pthread_join(racers[i], NULL), 0);
}

const struct test claim_tests[] = {
    {TEST(a_second_writer_is_refused_and_told_who_the_first_is)},
    {TEST(of_two_that_find_a_ring_free_the_slower_is_refused)},
    {TEST(a_claim_of_garbage_is_nobodys_to_take)},
    {TEST(the_ring_of_a_killed_writer_stays_taken)},
    {TEST(a_successor_tells_readers_that_a_message_stays_unfinished)},
    {TEST(a_successor_that_writes_nothing_passes_it_on)},
    {TEST(of_many_that_come_at_once_one_writes_at_a_time)},
    {0},
};
