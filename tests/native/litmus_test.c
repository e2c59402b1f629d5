/* Store buffers: a side that changes something and looks for sleepers, against one that announces
 * its sleep and looks for changes. Each must see the other's store, or a wake-up is lost. Nobody
 * sleeps here, so that there are a million tries a second where the stress has thousands. */
#include <pthread.h>
#include <sched.h>

#include "check.h"
#include "fixture.h"

enum { RACE_MS = 700, SPINS_BEFORE_YIELD = 1000, CROWD = 8, CHANGER_LOOPS = 50 };

struct race {
    struct fixture fixture;
    void (*change)(struct fixture *fixture);
    _Atomic uint32_t arrived;
    _Atomic uint32_t left;
    _Atomic bool is_over;
};

/* Both sides leave a line at almost the same moment. */
static void line_up(_Atomic uint32_t *line, uint32_t round) {
    atomic_fetch_add(line, 1);
    for (uint32_t spins = 0; atomic_load(line) < 2 * round; spins++)
        if (spins > SPINS_BEFORE_YIELD)
            sched_yield();
}

static void wait_a_little(uint32_t loops) {
    for (volatile uint32_t n = loops; n > 0; n--)
        ;
}

struct crowd {
    OWN_LINE _Atomic uint32_t word;
};

/* Lines that the other core has just written take long to store to, and the next store waits in
 * the buffer behind them. */
static void fill_the_store_buffer(void) {
    static struct crowd lines[CROWD];
    for (int i = 0; i < CROWD; i++)
        atomic_store_explicit(&lines[i].word, 1, memory_order_relaxed);
}

static void *change_each_round(void *argument) {
    struct race *race = argument;
    for (uint32_t round = 1; !atomic_load(&race->is_over); round++) {
        line_up(&race->arrived, round);
        wait_a_little(CHANGER_LOOPS);
        fill_the_store_buffer();
        race->change(&race->fixture);
        line_up(&race->left, round);
    }
    return NULL;
}

/* What the sleeping side does in each round, up to the point where it would sleep. */
struct look {
    struct bell *bell;
    uint64_t bit;
    bool (*sees_it)(struct fixture *fixture);
    void (*set_up)(struct fixture *fixture);
    void (*clean_up)(struct fixture *fixture);
};

static void check_that_they_never_miss_each_other(struct race *race, const struct look *look) {
    pthread_t other;
    uint32_t loops = CHANGER_LOOPS;
    look->set_up(&race->fixture);
    CHECK_EQUAL(pthread_create(&other, NULL, change_each_round, race), 0);
    uint64_t end = monotonic_ns() + RACE_MS * UINT64_C(1000000);
    for (uint32_t round = 1; !atomic_load(&race->is_over); round++) {
        line_up(&race->arrived, round);
        wait_a_little(loops + round % 8);
        uint32_t seen = bell_prepare(look->bell, look->bit);
        bool saw = look->sees_it(&race->fixture);
        atomic_store(&race->is_over, monotonic_ns() >= end);
        line_up(&race->left, round);
        if (!saw && times_rung(look->bell) == seen)
            check_failed(__FILE__, __LINE__, "nobody is woken in round %u", round);
        /* Keeps the two so close that either may be first: the window is some nanoseconds. */
        if (!saw)
            loops++;
        else if (loops > 0)
            loops--;
        bell_leave(look->bell, look->bit);
        look->clean_up(&race->fixture);
        fill_the_store_buffer(); /* takes the lines away from the other core */
        look->set_up(&race->fixture);
    }
    pthread_join(other, NULL);
}

static void do_nothing(struct fixture *fixture) {
    (void)fixture;
}

static void publish(struct fixture *fixture) {
    CHECK_EQUAL(put(fixture, 8, 'x'), RING_OK);
}

static bool sees_a_record(struct fixture *fixture) {
    return ring_readable(&fixture->readers[0]);
}

static void take_it(struct fixture *fixture) {
    take(fixture, 0, 8, 'x');
}

static void a_publish_and_a_parking_reader_never_miss_each_other(void) {
    static struct race race = {.change = publish};
    open_ring(&race.fixture, page_size(), 1);
    struct look look = {race.fixture.ring.data_bell, 1, sees_a_record, do_nothing, take_it};
    check_that_they_never_miss_each_other(&race, &look);
}

static void publish_and_close(struct fixture *fixture) {
    publish(fixture);
    ring_close(&fixture->ring);
}

static bool sees_the_record_before_the_end(struct fixture *fixture) {
    struct record record;
    enum ring_result result = ring_peek(&fixture->readers[0], &record);
    CHECK(result != RING_CLOSED);
    return result == RING_OK;
}

static void reopen(struct fixture *fixture) {
    take_it(fixture);
    atomic_store(&fixture->ring.shared->state, STATE_OPEN);
}

static void a_record_published_just_before_the_close_is_never_missed(void) {
    static struct race race = {.change = publish_and_close};
    open_ring(&race.fixture, page_size(), 1);
    struct look look = {race.fixture.ring.data_bell, 1, sees_the_record_before_the_end, do_nothing,
                        reopen};
    check_that_they_never_miss_each_other(&race, &look);
}

static uint32_t half(struct fixture *fixture) {
    return ring_max_record(&fixture->ring);
}

/* The changer's own copies, on lines that nobody else writes: a miss on the way to the bell would
 * give the store the time to get out. */
static struct {
    OWN_LINE struct ring ring;
    struct ring_reader reader;
    struct record record;
} releasing;

static void release(struct fixture *fixture) {
    (void)fixture;
    ring_release(&releasing.reader, &releasing.record);
}

static void fill_and_want(struct fixture *fixture) {
    while (put(fixture, half(fixture), 'x') == RING_OK)
        ;
    ring_want(&fixture->writer, half(fixture));
}

static bool sees_space(struct fixture *fixture) {
    return ring_writable(&fixture->writer, half(fixture));
}

static void a_release_and_a_parking_writer_never_miss_each_other(void) {
    static struct race race = {.change = release};
    open_ring(&race.fixture, page_size(), 1);
    releasing.ring = race.fixture.ring;
    releasing.reader = race.fixture.readers[0];
    releasing.reader.ring = &releasing.ring;
    releasing.record.header.length = half(&race.fixture);
    struct look look = {race.fixture.ring.space_bell, SPACE_BIT, sees_space, fill_and_want,
                        do_nothing};
    check_that_they_never_miss_each_other(&race, &look);
}

const struct test litmus_tests[] = {
    {TEST(a_publish_and_a_parking_reader_never_miss_each_other)},
    {TEST(a_record_published_just_before_the_close_is_never_missed)},
    {TEST(a_release_and_a_parking_writer_never_miss_each_other)},
    {0},
};
