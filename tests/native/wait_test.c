/* Waiting, on one thread: the other side acts from within the hooks, at the very points where a
 * wake-up could be lost. A lost one sleeps until the claim's time limit. */
#include "check.h"
#include "fixture.h"

enum { MS = 1000000 };

static struct fixture *hooked;
static enum hook hook_point;
static void (*hook_action)(void);
static int n_sleeps;

static void run_action(enum hook point) {
    n_sleeps += point == HOOK_BEFORE_SLEEP;
    if (point != hook_point || !hook_action)
        return;
    void (*action)(void) = hook_action;
    hook_action = NULL; /* once, and not from within itself */
    action();
}

/* Runs `action` when this thread comes to `point` for the first time. */
static void at(struct fixture *fixture, enum hook point, void (*action)(void)) {
    hooked = fixture;
    hook_point = point;
    hook_action = action;
    n_sleeps = 0;
    on_hook = run_action;
}

static void publish_one(void) {
    CHECK_EQUAL(put(hooked, 8, 'x'), RING_OK);
}

static void drain(void) {
    struct record record;
    while (ring_peek(&hooked->readers[0], &record) == RING_OK)
        ring_release(&hooked->readers[0], &record);
}

static void close_it(void) {
    ring_close(&hooked->ring);
}

static void poison_it(void) {
    ring_poison(&hooked->ring, 1, 1);
}

static void mark_readers_dead(void) {
    for (uint32_t slot = 0; slot < hooked->ring.n_readers; slot++)
        ring_mark_dead(&hooked->ring, slot);
}

static void ring_for_nothing(void) {
    bell_ring(hooked->ring.data_bell);
}

static void check_reader_wakes(void (*action)(void)) {
    enum hook points[] = {HOOK_PARKED_SET, HOOK_BEFORE_SLEEP};
    for (int i = 0; i < 2; i++) {
        struct fixture f;
        open_ring(&f, page_size(), 1);
        struct waiter waiter = reader_waiter(&f, 0);
        at(&f, points[i], action);
        CHECK_EQUAL(wait_until(&waiter, 0, UINT64_MAX), WAIT_READY);
        CHECK(hook_action == NULL);
        CHECK_EQUAL(n_sleeps, i); /* before the second look nobody needs to sleep */
        CHECK_EQUAL(atomic_load(&f.ring.data_bell->parked), 0);
    }
}

static void check_writer_wakes(void (*action)(void)) {
    enum hook points[] = {HOOK_PARKED_SET, HOOK_BEFORE_SLEEP};
    for (int i = 0; i < 2; i++) {
        struct fixture f;
        open_ring(&f, page_size(), 1);
        fill_ring(&f, 256);
        struct waiter waiter = writer_waiter(&f);
        at(&f, points[i], action);
        CHECK_EQUAL(wait_until(&waiter, 0, UINT64_MAX), WAIT_READY);
        CHECK(hook_action == NULL);
        CHECK_EQUAL(n_sleeps, i);
        CHECK_EQUAL(atomic_load(&f.ring.space_bell->parked), 0);
    }
}

static void a_record_that_comes_while_its_reader_falls_asleep_is_not_missed(void) {
    check_reader_wakes(publish_one);
}

static void an_end_that_comes_while_a_reader_falls_asleep_is_not_missed(void) {
    check_reader_wakes(close_it);
    check_reader_wakes(poison_it);
    check_reader_wakes(mark_readers_dead);
}

static void space_that_comes_while_the_writer_falls_asleep_is_not_missed(void) {
    check_writer_wakes(drain);
}

static void an_end_that_comes_while_the_writer_falls_asleep_is_not_missed(void) {
    check_writer_wakes(close_it);
    check_writer_wakes(poison_it);
    check_writer_wakes(mark_readers_dead);
}

static void park_and_look_for_a_record(void) {
    bell_prepare(hooked->ring.data_bell, 1);
    CHECK(ring_readable(&hooked->readers[0]));
}

static void publish_shows_the_record_before_it_looks_for_sleepers(void) {
    struct fixture f;
    open_ring(&f, page_size(), 1);
    at(&f, HOOK_BEFORE_NOTIFY, park_and_look_for_a_record);
    put(&f, 8, 'a');
    CHECK(hook_action == NULL);
    CHECK_EQUAL(times_rung(f.ring.data_bell), 1);
}

static void park_and_look_for_space(void) {
    ring_want(&hooked->writer, 0);
    bell_prepare(hooked->ring.space_bell, SPACE_BIT);
    CHECK(ring_writable(&hooked->writer, 0));
}

static void release_frees_the_space_before_it_looks_for_a_sleeper(void) {
    struct fixture f;
    open_ring(&f, page_size(), 1);
    uint32_t count = fill_ring(&f, (uint32_t)page_size() / 4);
    at(&f, HOOK_BEFORE_NOTIFY, park_and_look_for_space);
    for (uint32_t i = 0; i < count; i++)
        take(&f, 0, (uint32_t)page_size() / 4 - 16, 'f');
    CHECK(hook_action == NULL);
    CHECK_EQUAL(times_rung(f.ring.space_bell), 1);
}

static bool is_parked(void *bell) {
    return atomic_load(&((struct bell *)bell)->parked) != 0;
}

static void the_second_look_comes_after_the_bit_is_set(void) {
    struct fixture f;
    open_ring(&f, page_size(), 1);
    struct waiter waiter = reader_waiter(&f, 0);
    waiter.ready = is_parked;
    waiter.condition = f.ring.data_bell;
    CHECK_EQUAL(wait_until(&waiter, 0, monotonic_ns() + 50 * MS), WAIT_READY);
}

static void a_ring_between_prepare_and_sleep_prevents_the_sleep(void) {
    static struct bell bell;
    uint32_t seen = bell_prepare(&bell, 1);
    bell_ring(&bell);
    CHECK_EQUAL(bell_sleep(&bell, seen, UINT64_MAX), BELL_RUNG);
}

static void check_that_it_has_rung(void) {
    CHECK_EQUAL(times_rung(hooked->ring.data_bell), 1);
}

static void the_bell_has_rung_before_it_wakes_anybody(void) {
    struct fixture f;
    open_ring(&f, page_size(), 1);
    at(&f, HOOK_BEFORE_WAKE, check_that_it_has_rung);
    bell_ring(f.ring.data_bell);
    CHECK(hook_action == NULL);
}

/* Not ready at the look during which the bell rings, ready ever after. */
static bool is_ready_next_time(void *bell) {
    static int looks;
    if (++looks == 2)
        bell_ring(bell);
    return looks > 2;
}

static void a_ring_during_the_second_look_prevents_the_sleep(void) {
    struct fixture f;
    open_ring(&f, page_size(), 1);
    struct waiter waiter = reader_waiter(&f, 0);
    waiter.ready = is_ready_next_time;
    waiter.condition = f.ring.data_bell;
    CHECK_EQUAL(wait_until(&waiter, 0, UINT64_MAX), WAIT_READY);
}

static void a_ring_for_nothing_wakes_and_the_wait_goes_on(void) {
    struct fixture f;
    open_ring(&f, page_size(), 1);
    struct waiter waiter = reader_waiter(&f, 0);
    at(&f, HOOK_BEFORE_SLEEP, ring_for_nothing);
    CHECK_EQUAL(wait_until(&waiter, 0, monotonic_ns() + 50 * MS), WAIT_TIMEOUT);
    CHECK(n_sleeps >= 2);
}

static void a_wait_ends_at_its_deadline(void) {
    struct fixture f;
    open_ring(&f, page_size(), 1);
    struct waiter waiter = reader_waiter(&f, 0);
    uint64_t start = monotonic_ns();
    CHECK_EQUAL(wait_until(&waiter, 0, start + 50 * MS), WAIT_TIMEOUT);
    CHECK(monotonic_ns() >= start + 50 * MS);
    CHECK_EQUAL(atomic_load(&f.ring.data_bell->parked), 0);
    CHECK_EQUAL(wait_until(&waiter, UINT64_C(3600000) * MS, start + 60 * MS), WAIT_TIMEOUT);
    CHECK_EQUAL(wait_until(&waiter, 0, start), WAIT_TIMEOUT);
    CHECK_EQUAL(wait_until(&waiter, 0, 0), WAIT_TIMEOUT);
}

static void what_is_ready_beats_a_deadline_that_has_passed(void) {
    struct fixture f;
    open_ring(&f, page_size(), 1);
    struct waiter waiter = reader_waiter(&f, 0);
    put(&f, 8, 'a');
    CHECK_EQUAL(wait_until(&waiter, 0, 0), WAIT_READY);
}

static void each_wait_is_counted_as_what_ended_it(void) {
    struct fixture f;
    open_ring(&f, page_size(), 1);
    struct waiter waiter = reader_waiter(&f, 0);
    static _Atomic uint64_t counters[N_COUNTERS];
    const _Atomic uint64_t *spins = &counters[COUNT_SPINS], *yields = &counters[COUNT_YIELDS],
                           *parks = &counters[COUNT_PARKS];
    waiter.counters = counters;
    CHECK(!wait_spin(&waiter, monotonic_ns() + 1000));
    CHECK_EQUAL(wait_until(&waiter, 0, 0), WAIT_TIMEOUT);
    CHECK(*spins == 0 && *yields == 0 && *parks == 1);
    put(&f, 8, 'a');
    CHECK(wait_spin(&waiter, monotonic_ns() + 1000));
    CHECK(wait_spin(&waiter, 0));
    CHECK(*spins == 2 && *yields == 0 && *parks == 1);
    CHECK_EQUAL(wait_until(&waiter, 0, UINT64_MAX), WAIT_READY);
    CHECK(*spins == 2 && *yields == 1 && *parks == 1);
}

const struct test wait_tests[] = {
    {TEST(a_record_that_comes_while_its_reader_falls_asleep_is_not_missed)},
    {TEST(an_end_that_comes_while_a_reader_falls_asleep_is_not_missed)},
    {TEST(space_that_comes_while_the_writer_falls_asleep_is_not_missed)},
    {TEST(an_end_that_comes_while_the_writer_falls_asleep_is_not_missed)},
    {TEST(publish_shows_the_record_before_it_looks_for_sleepers)},
    {TEST(release_frees_the_space_before_it_looks_for_a_sleeper)},
    {TEST(the_second_look_comes_after_the_bit_is_set)},
    {TEST(a_ring_between_prepare_and_sleep_prevents_the_sleep)},
    {TEST(the_bell_has_rung_before_it_wakes_anybody)},
    {TEST(a_ring_during_the_second_look_prevents_the_sleep)},
    {TEST(a_ring_for_nothing_wakes_and_the_wait_goes_on)},
    {TEST(a_wait_ends_at_its_deadline)},
    {TEST(what_is_ready_beats_a_deadline_that_has_passed)},
    {TEST(each_wait_is_counted_as_what_ended_it)},
    {0},
};
