/* Waking threads that really sleep in the kernel, without a deadline: a lost wake-up is a hang. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "fixture.h"

struct sleeper {
    pthread_t thread;
    struct waiter waiter;
    _Atomic pid_t id;
    _Atomic bool done;
    enum wait_result result;
};

static void *sleep_until_ready(void *argument) {
    struct sleeper *sleeper = argument;
    atomic_store(&sleeper->id, (pid_t)syscall(SYS_gettid));
    sleeper->result = wait_until(&sleeper->waiter, 0, UINT64_MAX);
    atomic_store(&sleeper->done, true);
    return NULL;
}

static bool sleeps_in_the_kernel(pid_t thread) {
    char path[64], line[256] = "";
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)thread);
    FILE *stat = fopen(path, "r");
    if (!stat || !fgets(line, sizeof line, stat))
        line[0] = '\0';
    if (stat)
        fclose(stat);
    const char *state = strrchr(line, ')');
    return state && strncmp(state, ") S", 3) == 0;
}

static void pause_a_millisecond(void) {
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

/* Starts a thread and returns when its bit is set and the kernel has put it to sleep. */
static void fall_asleep(struct sleeper *sleeper, struct waiter waiter) {
    *sleeper = (struct sleeper){.waiter = waiter};
    CHECK_EQUAL(pthread_create(&sleeper->thread, NULL, sleep_until_ready, sleeper), 0);
    for (int settled = 0; settled < 3; pause_a_millisecond()) {
        pid_t id = atomic_load(&sleeper->id);
        bool asleep =
            id && (atomic_load(&waiter.bell->parked) & waiter.bit) != 0 && sleeps_in_the_kernel(id);
        settled = asleep ? settled + 1 : 0;
    }
    CHECK(!atomic_load(&sleeper->done));
}

static void expect_woken(struct sleeper *sleeper, enum wait_result result) {
    CHECK_EQUAL(pthread_join(sleeper->thread, NULL), 0);
    CHECK_EQUAL(sleeper->result, result);
    CHECK_EQUAL(atomic_load(&sleeper->waiter.bell->parked) & sleeper->waiter.bit, 0);
}

static void one_publish_wakes_every_reader(void) {
    struct fixture f;
    struct sleeper sleepers[4];
    open_ring(&f, page_size(), 4);
    for (uint32_t slot = 0; slot < 4; slot++)
        fall_asleep(&sleepers[slot], reader_waiter(&f, slot));
    put(&f, 8, 'a');
    for (uint32_t slot = 0; slot < 4; slot++)
        expect_woken(&sleepers[slot], WAIT_READY);
}

static void close_wakes_readers_and_poison_too(void) {
    for (int poison = 0; poison < 2; poison++) {
        struct fixture f;
        struct sleeper sleepers[2];
        open_ring(&f, page_size(), 2);
        for (uint32_t slot = 0; slot < 2; slot++)
            fall_asleep(&sleepers[slot], reader_waiter(&f, slot));
        if (poison)
            ring_poison(&f.ring, 1, 1);
        else
            ring_close(&f.ring);
        for (uint32_t slot = 0; slot < 2; slot++)
            expect_woken(&sleepers[slot], WAIT_READY);
    }
}

static void close_wakes_the_writer_and_poison_too(void) {
    for (int poison = 0; poison < 2; poison++) {
        struct fixture f;
        struct sleeper writer;
        open_ring(&f, page_size(), 1);
        fill_ring(&f, 256);
        fall_asleep(&writer, writer_waiter(&f));
        if (poison)
            ring_poison(&f.ring, 1, 1);
        else
            ring_close(&f.ring);
        expect_woken(&writer, WAIT_READY);
    }
}

static void released_records_wake_the_writer(void) {
    struct fixture f;
    struct sleeper writer;
    open_ring(&f, page_size(), 2);
    uint32_t count = fill_ring(&f, 256);
    fall_asleep(&writer, writer_waiter(&f));
    for (uint32_t slot = 0; slot < 2; slot++)
        for (uint32_t i = 0; i < count; i++)
            take(&f, slot, 240, 'f');
    expect_woken(&writer, WAIT_READY);
}

static void a_death_wakes_the_writer(void) {
    struct fixture f;
    struct sleeper writer;
    open_ring(&f, page_size(), 1);
    fill_ring(&f, 256);
    fall_asleep(&writer, writer_waiter(&f));
    ring_mark_dead(&f.ring, 0);
    expect_woken(&writer, WAIT_READY);
}

static struct bell shared_bell;

/* An engine sleeps in one bell for space and for the replies of all ranks. */
static void a_publish_and_a_close_wake_who_sleeps_in_a_shared_bell(void) {
    for (int end = 0; end < 2; end++) {
        struct fixture f;
        struct sleeper engine;
        open_ring(&f, page_size(), 1);
        CHECK_EQUAL(ring_map(&f.ring, f.fd, &shared_bell, NULL), 0);
        struct waiter waiter = reader_waiter(&f, 0);
        waiter.bit = 1 | SPACE_BIT;
        fall_asleep(&engine, waiter);
        if (end)
            ring_close(&f.ring);
        else
            put(&f, 8, 'a');
        expect_woken(&engine, WAIT_READY);
    }
}

static void space_wakes_who_sleeps_in_a_shared_bell(void) {
    struct fixture f;
    struct sleeper engine;
    open_ring(&f, page_size(), 1);
    CHECK_EQUAL(ring_map(&f.ring, f.fd, NULL, &shared_bell), 0);
    fill_ring(&f, (uint32_t)page_size() / 4);
    struct waiter waiter = writer_waiter(&f);
    waiter.bit = 1 | SPACE_BIT;
    fall_asleep(&engine, waiter);
    take(&f, 0, (uint32_t)page_size() / 4 - 16, 'f');
    expect_woken(&engine, WAIT_READY);
}

static void ignore(int signal_number) {
    (void)signal_number;
}

static void a_signal_ends_a_wait_even_if_its_handler_restarts_calls(void) {
    for (int flags = 0; flags < 2; flags++) {
        struct fixture f;
        struct sleeper reader;
        struct sigaction action = {.sa_handler = ignore, .sa_flags = flags ? SA_RESTART : 0};
        CHECK_EQUAL(sigaction(SIGUSR1, &action, NULL), 0);
        open_ring(&f, page_size(), 1);
        fall_asleep(&reader, reader_waiter(&f, 0));
        CHECK_EQUAL(pthread_kill(reader.thread, SIGUSR1), 0);
        expect_woken(&reader, WAIT_SIGNAL);
    }
}

const struct test wake_tests[] = {
    {TEST(one_publish_wakes_every_reader)},
    {TEST(close_wakes_readers_and_poison_too)},
    {TEST(close_wakes_the_writer_and_poison_too)},
    {TEST(released_records_wake_the_writer)},
    {TEST(a_death_wakes_the_writer)},
    {TEST(a_publish_and_a_close_wake_who_sleeps_in_a_shared_bell)},
    {TEST(space_wakes_who_sleeps_in_a_shared_bell)},
    {TEST(a_signal_ends_a_wait_even_if_its_handler_restarts_calls)},
    {0},
};
