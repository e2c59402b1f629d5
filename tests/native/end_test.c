/* How a ring ends: closed, poisoned; and what happens to a reader that is marked dead. */
#include "check.h"
#include "fixture.h"

static enum ring_result next_result(struct fixture *f, uint32_t slot) {
    struct record record;
    return ring_peek(&f->readers[slot], &record);
}

static void close_drains_then_says_closed(void) {
    struct fixture f;
    open_ring(&f, page_size(), 2);
    put(&f, 8, 'a');
    put(&f, 9, 'b');
    take(&f, 1, 8, 'a');
    ring_close(&f.ring);
    CHECK_EQUAL(put(&f, 8, 'c'), RING_CLOSED);
    take(&f, 0, 8, 'a');
    take(&f, 0, 9, 'b');
    CHECK_EQUAL(next_result(&f, 0), RING_CLOSED);
    take(&f, 1, 9, 'b');
    CHECK_EQUAL(next_result(&f, 1), RING_CLOSED);
    CHECK_EQUAL(next_result(&f, 1), RING_CLOSED);
}

static struct fixture *ending;

static void put_and_close(enum hook point) {
    if (point != HOOK_BEFORE_STATE)
        return;
    on_hook = NULL;
    CHECK_EQUAL(put(ending, 8, 'a'), RING_OK);
    ring_close(&ending->ring);
}

static void a_record_that_comes_just_before_the_end_is_read(void) {
    struct fixture f;
    open_ring(&f, page_size(), 1);
    ending = &f;
    on_hook = put_and_close;
    take(&f, 0, 8, 'a');
    CHECK(on_hook == NULL);
    CHECK_EQUAL(next_result(&f, 0), RING_CLOSED);
}

static void poison_drains_then_says_poisoned(void) {
    struct fixture f;
    open_ring(&f, page_size(), 1);
    put(&f, 8, 'a');
    ring_poison(&f.ring, 3, 5);
    CHECK_EQUAL(put(&f, 8, 'b'), RING_POISONED);
    take(&f, 0, 8, 'a');
    CHECK_EQUAL(next_result(&f, 0), RING_POISONED);
}

static void an_ended_ring_keeps_nobody_waiting(void) {
    struct fixture f, g;
    open_ring(&f, page_size(), 1);
    open_ring(&g, page_size(), 1);
    CHECK(!ring_readable(&f.readers[0]));
    ring_close(&f.ring);
    ring_poison(&g.ring, 1, 1);
    CHECK(ring_readable(&f.readers[0]));
    CHECK(ring_readable(&g.readers[0]));

    struct fixture full;
    open_ring(&full, page_size(), 1);
    fill_ring(&full, 256);
    CHECK(!ring_writable(&full.writer, 0));
    ring_close(&full.ring);
    CHECK(ring_writable(&full.writer, 0));
}

static void a_poison_says_why_and_who(void) {
    struct fixture f;
    open_ring(&f, page_size(), 1);
    ring_poison(&f.ring, UINT16_MAX, -1);
    uint64_t word = ring_state_word(&f.ring);
    CHECK_EQUAL(STATE_OF(word), STATE_POISONED);
    CHECK_EQUAL(STATE_CODE(word), UINT16_MAX);
    CHECK(STATE_RANK(word) == -1);
}

static void the_first_poison_stays(void) {
    struct fixture f;
    open_ring(&f, page_size(), 1);
    ring_poison(&f.ring, 3, 5);
    ring_poison(&f.ring, 4, 6);
    ring_close(&f.ring);
    CHECK_EQUAL(ring_state_word(&f.ring), STATE_PACK(STATE_POISONED, 3, 5));
    CHECK_EQUAL(next_result(&f, 0), RING_POISONED);
}

static void poison_beats_close(void) {
    struct fixture f;
    open_ring(&f, page_size(), 1);
    ring_close(&f.ring);
    ring_poison(&f.ring, 3, 5);
    CHECK_EQUAL(ring_state_word(&f.ring), STATE_PACK(STATE_POISONED, 3, 5));
    CHECK_EQUAL(next_result(&f, 0), RING_POISONED);
    CHECK_EQUAL(put(&f, 0, 'x'), RING_POISONED);
}

static struct fixture *watched;

static void check_that_the_state_is_set(enum hook point) {
    if (point == HOOK_BEFORE_WAKE)
        CHECK(STATE_OF(ring_state_word(&watched->ring)) == STATE_CLOSED);
}

static void the_state_is_set_before_the_bells_ring(void) {
    struct fixture f;
    open_ring(&f, page_size(), 1);
    watched = &f;
    on_hook = check_that_the_state_is_set;
    ring_close(&f.ring);
    CHECK_EQUAL(times_rung(f.ring.data_bell), 1);
    CHECK_EQUAL(times_rung(f.ring.space_bell), 1);
}

static void a_dead_reader_frees_the_writer(void) {
    struct fixture f;
    open_ring(&f, page_size(), 2);
    uint32_t count = fill_ring(&f, 256);
    for (uint32_t i = 0; i < count; i++)
        take(&f, 1, 240, 'f');
    CHECK_EQUAL(put(&f, 0, 'x'), RING_AGAIN);
    ring_mark_dead(&f.ring, 0);
    CHECK_EQUAL(put(&f, 9, 'x'), RING_OK);
    take(&f, 1, 9, 'x');
}

static void a_writer_without_living_readers_is_never_held_up(void) {
    struct fixture f;
    open_ring(&f, page_size(), 2);
    ring_mark_dead(&f.ring, 0);
    ring_mark_dead(&f.ring, 1);
    for (int i = 0; i < 100; i++)
        CHECK_EQUAL(put(&f, 240, 'x'), RING_OK);
}

static void a_reader_that_was_marked_dead_is_told(void) {
    struct fixture f;
    open_ring(&f, page_size(), 1);
    ring_mark_dead(&f.ring, 0);
    CHECK(ring_readable(&f.readers[0]));
    CHECK_EQUAL(next_result(&f, 0), RING_DEAD);
}

static void a_reader_that_was_overtaken_after_it_was_marked_dead_is_told(void) {
    struct fixture f;
    open_ring(&f, page_size(), 1);
    ring_mark_dead(&f.ring, 0);
    for (int i = 0; i < 100; i++)
        CHECK_EQUAL(put(&f, 240, 'x'), RING_OK);
    CHECK_EQUAL(next_result(&f, 0), RING_DEAD);
}

static void dead_is_final_against_a_late_attach(void) {
    struct fixture f;
    struct ring_reader late;
    f.fd = new_segment(ring_segment_bytes(page_size(), 1));
    CHECK_EQUAL(ring_format(f.fd, page_size(), 1), 0);
    CHECK_EQUAL(ring_map(&f.ring, f.fd, NULL, NULL), 0);
    ring_mark_dead(&f.ring, 0);
    CHECK(!ring_attach(&late, &f.ring, 0, 1));
    CHECK_EQUAL(atomic_load(&f.ring.shared->readers[0].status), READER_DEAD);
    ring_mark_dead(&f.ring, 0);
    CHECK_EQUAL(atomic_load(&f.ring.shared->readers[0].status), READER_DEAD);
}

static void a_slot_is_taken_once_and_only_if_there_is_one(void) {
    struct fixture f;
    struct ring_reader second;
    open_ring(&f, page_size(), 2);
    CHECK(!ring_attach(&second, &f.ring, 0, 1));
    CHECK(!ring_attach(&second, &f.ring, 2, 1));
    CHECK(!ring_attach(&second, &f.ring, UINT32_MAX, 1));
}

static void check_that_the_writer_is_freed(enum hook point) {
    if (point == HOOK_BEFORE_WAKE)
        CHECK(ring_writable(&watched->writer, 0));
}

static void a_death_clears_the_parked_bit_and_rings_the_writer(void) {
    struct fixture f;
    open_ring(&f, page_size(), 2);
    fill_ring(&f, 256);
    bell_prepare(f.ring.data_bell, UINT64_C(1) << 0);
    bell_prepare(f.ring.data_bell, UINT64_C(1) << 1);
    ring_mark_dead(&f.ring, 0);
    CHECK_EQUAL(atomic_load(&f.ring.data_bell->parked), UINT64_C(1) << 1);
    uint32_t before = times_rung(f.ring.space_bell);
    watched = &f;
    on_hook = check_that_the_writer_is_freed;
    ring_mark_dead(&f.ring, 1);
    CHECK(times_rung(f.ring.space_bell) > before);
}

const struct test end_tests[] = {
    {TEST(close_drains_then_says_closed)},
    {TEST(a_record_that_comes_just_before_the_end_is_read)},
    {TEST(poison_drains_then_says_poisoned)},
    {TEST(an_ended_ring_keeps_nobody_waiting)},
    {TEST(a_poison_says_why_and_who)},
    {TEST(the_first_poison_stays)},
    {TEST(poison_beats_close)},
    {TEST(the_state_is_set_before_the_bells_ring)},
    {TEST(a_dead_reader_frees_the_writer)},
    {TEST(a_writer_without_living_readers_is_never_held_up)},
    {TEST(a_reader_that_was_marked_dead_is_told)},
    {TEST(a_reader_that_was_overtaken_after_it_was_marked_dead_is_told)},
    {TEST(dead_is_final_against_a_late_attach)},
    {TEST(a_slot_is_taken_once_and_only_if_there_is_one)},
    {TEST(a_death_clears_the_parked_bit_and_rings_the_writer)},
    {0},
};
