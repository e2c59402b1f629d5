/* Records: claim, publish, peek, release, and what they cost others. Runs all tables. */
#include <stdio.h>
#include <string.h>

#include "check.h"
#include "fixture.h"

static void a_claim_shows_nothing_before_it_is_published(void) {
    struct fixture f;
    struct record record;
    enum ring_result result;
    open_ring(&f, page_size(), 1);
    CHECK(ring_claim(&f.writer, 8, &result) != NULL);
    CHECK_EQUAL(ring_peek(&f.readers[0], &record), RING_AGAIN);
    CHECK(!ring_readable(&f.readers[0]));
    CHECK_EQUAL(put(&f, 8, 'a'), RING_OK); /* claims the same place once more */
    take(&f, 0, 8, 'a');
    CHECK_EQUAL(ring_peek(&f.readers[0], &record), RING_AGAIN);
}

static void a_record_stays_the_next_until_it_is_released(void) {
    struct fixture f;
    struct record record;
    open_ring(&f, page_size(), 1);
    put(&f, 3, 'a');
    put(&f, 5, 'b');
    for (int i = 0; i < 3; i++) {
        CHECK_EQUAL(ring_peek(&f.readers[0], &record), RING_OK);
        CHECK_EQUAL(record.header.kind, 'a');
    }
    ring_release(&f.readers[0], &record);
    take(&f, 0, 5, 'b');
}

static void every_reader_sees_every_record_in_order(void) {
    struct fixture f;
    open_ring(&f, page_size(), 3);
    for (uint32_t i = 0; i < 20; i++)
        CHECK_EQUAL(put(&f, i, (unsigned char)i), RING_OK);
    for (uint32_t slot = 0; slot < 3; slot++)
        for (uint32_t i = 0; i < 20; i++)
            take(&f, slot, i, (unsigned char)i);
}

static void a_record_across_the_end_is_contiguous(void) {
    struct fixture f;
    struct record record;
    open_ring(&f, page_size(), 1);
    uint32_t longest = ring_max_record(&f.ring), laps = 0;
    for (uint64_t i = 0; i < 64; i++) {
        uint32_t length = longest - 8 * (uint32_t)(i % 5);
        CHECK_EQUAL(put(&f, length, (unsigned char)i), RING_OK);
        CHECK_EQUAL(ring_peek(&f.readers[0], &record), RING_OK);
        laps += record.payload + length > f.ring.data + f.ring.capacity;
        take(&f, 0, length, (unsigned char)i);
    }
    CHECK(laps > 10);
}

static void records_are_aligned_to_8(void) {
    struct fixture f;
    struct record record;
    open_ring(&f, page_size(), 1);
    for (uint32_t length = 0; length < 20; length++) {
        put(&f, length, 'x');
        CHECK_EQUAL(ring_peek(&f.readers[0], &record), RING_OK);
        CHECK_EQUAL((uintptr_t)record.payload % RECORD_ALIGN, 0);
        take(&f, 0, length, 'x');
    }
}

static void a_ring_takes_its_capacity_and_not_one_record_more(void) {
    struct fixture f;
    open_ring(&f, page_size(), 1);
    CHECK_EQUAL(fill_ring(&f, 256), f.ring.capacity / 256);
    CHECK_EQUAL(put(&f, 0, 'x'), RING_AGAIN);
    CHECK(!ring_writable(&f.writer, 0));
    take(&f, 0, 240, 'f');
    CHECK(!ring_writable(&f.writer, 241));
    CHECK_EQUAL(put(&f, 241, 'x'), RING_AGAIN);
    CHECK(ring_writable(&f.writer, 240));
    CHECK_EQUAL(put(&f, 240, 'x'), RING_OK);
    CHECK_EQUAL(put(&f, 0, 'x'), RING_AGAIN);
}

static void two_of_the_longest_records_fill_the_ring(void) {
    struct fixture f;
    open_ring(&f, page_size(), 1);
    uint32_t longest = ring_max_record(&f.ring);
    CHECK_EQUAL(put(&f, longest, 'a'), RING_OK);
    CHECK_EQUAL(put(&f, longest, 'b'), RING_OK);
    CHECK_EQUAL(put(&f, 0, 'c'), RING_AGAIN);
    take(&f, 0, longest, 'a');
    take(&f, 0, longest, 'b');
}

static void the_writer_waits_for_the_slowest_reader(void) {
    struct fixture f;
    open_ring(&f, page_size(), 3);
    fill_ring(&f, 512);
    take(&f, 0, 496, 'f');
    take(&f, 2, 496, 'f');
    CHECK_EQUAL(put(&f, 0, 'x'), RING_AGAIN);
    take(&f, 1, 496, 'f');
    CHECK_EQUAL(put(&f, 0, 'x'), RING_OK);
}

static void the_writer_waits_for_a_slot_that_nobody_has_taken_yet(void) {
    struct fixture f;
    struct ring_reader late;
    f.fd = new_segment(ring_segment_bytes(page_size(), 2));
    CHECK_EQUAL(ring_format(f.fd, page_size(), 2), 0);
    CHECK_EQUAL(ring_map(&f.ring, f.fd, NULL, NULL), 0);
    open_writer(&f.writer, &f.ring);
    CHECK(ring_attach(&f.readers[0], &f.ring, 0, 1));
    uint32_t count = fill_ring(&f, 512);
    for (uint32_t i = 0; i < count; i++)
        take(&f, 0, 496, 'f');
    CHECK_EQUAL(put(&f, 0, 'x'), RING_AGAIN);
    CHECK(ring_attach(&late, &f.ring, 1, 2));
    f.readers[1] = late;
    take(&f, 1, 496, 'f');
    CHECK_EQUAL(put(&f, 0, 'x'), RING_OK);
}

static void the_heads_are_scanned_only_when_the_limit_does_not_suffice(void) {
    struct fixture f;
    open_ring(&f, page_size(), 1);
    put(&f, 240, 'f');
    uint64_t limit = f.writer.limit;
    CHECK_EQUAL(limit, f.ring.capacity);
    take(&f, 0, 240, 'f');
    fill_ring(&f, 256); /* scans, when it comes to the old limit */
    CHECK_EQUAL(f.writer.limit, limit + 256);

    take(&f, 0, 240, 'f');
    limit = f.writer.limit;
    f.writer.limit += 256; /* as if scanned just now */
    atomic_store(&f.ring.shared->readers[0].head, f.writer.tail - f.ring.capacity);
    CHECK_EQUAL(put(&f, 240, 'f'), RING_OK); /* a scan would refuse it: the ring looks full */
    CHECK_EQUAL(f.writer.limit, limit + 256);
}

static void a_writer_goes_on_where_the_last_one_stopped(void) {
    struct fixture f;
    open_ring(&f, page_size(), 1);
    put(&f, 8, 'a');
    ring_writer_release(&f.writer);
    open_writer(&f.writer, &f.ring);
    put(&f, 9, 'b');
    take(&f, 0, 8, 'a');
    take(&f, 0, 9, 'b');
}

static void publish_rings_only_if_somebody_sleeps(void) {
    struct fixture f;
    open_ring(&f, page_size(), 2);
    put(&f, 8, 'a');
    CHECK_EQUAL(times_rung(f.ring.data_bell), 0);
    bell_prepare(f.ring.data_bell, UINT64_C(1) << 1);
    put(&f, 8, 'a');
    CHECK_EQUAL(times_rung(f.ring.data_bell), 1);
    bell_leave(f.ring.data_bell, UINT64_C(1) << 1);
    put(&f, 8, 'a');
    CHECK_EQUAL(times_rung(f.ring.data_bell), 1);
    CHECK_EQUAL(times_rung(f.ring.space_bell), 0);
}

/* Drains the ring. Returns after how many releases the space bell rang first; 0 if never. */
static uint32_t release_that_rings(struct fixture *f, uint32_t slot, uint32_t count) {
    uint32_t first = 0, before = times_rung(f->ring.space_bell);
    for (uint32_t i = 1; i <= count; i++) {
        take(f, slot, 240, 'f');
        if (times_rung(f->ring.space_bell) != before && !first)
            first = i;
    }
    CHECK(times_rung(f->ring.space_bell) - before <= 1); /* once, not for each record */
    return first;
}

static void release_rings_nobody_while_the_writer_is_awake(void) {
    struct fixture f;
    open_ring(&f, page_size(), 1);
    uint32_t count = fill_ring(&f, 256);
    ring_want(&f.writer, 240);
    CHECK_EQUAL(release_that_rings(&f, 0, count), 0);
}

static void release_rings_when_a_quarter_of_the_ring_is_free(void) {
    struct fixture f;
    open_ring(&f, page_size(), 1);
    uint32_t count = fill_ring(&f, 256);
    ring_want(&f.writer, 0);
    bell_prepare(f.ring.space_bell, SPACE_BIT);
    CHECK_EQUAL(release_that_rings(&f, 0, count), count / 4);
}

static void release_rings_when_a_long_record_fits(void) {
    struct fixture f;
    open_ring(&f, page_size(), 1);
    uint32_t count = fill_ring(&f, 256);
    ring_want(&f.writer, ring_max_record(&f.ring));
    bell_prepare(f.ring.space_bell, SPACE_BIT);
    CHECK_EQUAL(release_that_rings(&f, 0, count), count / 2);
}

static void release_rings_for_one_record_when_the_writer_asks_for_no_more(void) {
    struct fixture f;
    open_ring(&f, page_size(), 1);
    uint32_t count = fill_ring(&f, 256);
    ring_want(&f.writer, 240);
    bell_prepare(f.ring.space_bell, SPACE_BIT);
    ring_want_least(&f.writer, 240);
    CHECK_EQUAL(release_that_rings(&f, 0, count), 1);
}

static void every_reader_that_crosses_the_wanted_position_rings(void) {
    struct fixture f;
    open_ring(&f, page_size(), 2);
    uint32_t count = fill_ring(&f, 256);
    ring_want(&f.writer, 0);
    bell_prepare(f.ring.space_bell, SPACE_BIT);
    CHECK_EQUAL(release_that_rings(&f, 1, count), count / 4);
    CHECK(!ring_writable(&f.writer, 0));
    CHECK_EQUAL(release_that_rings(&f, 0, count), count / 4);
    CHECK(ring_writable(&f.writer, 0));
}

/* One reader sleeping in a shared bell is not a sleeping writer. */
static void release_does_not_ring_for_other_bits_of_a_shared_bell(void) {
    struct fixture f;
    open_ring(&f, page_size(), 1);
    uint32_t count = fill_ring(&f, 256);
    ring_want(&f.writer, 0);
    bell_prepare(f.ring.space_bell, 1);
    CHECK_EQUAL(release_that_rings(&f, 0, count), 0);
}

const struct test ring_tests[] = {
    {TEST(a_claim_shows_nothing_before_it_is_published)},
    {TEST(a_record_stays_the_next_until_it_is_released)},
    {TEST(every_reader_sees_every_record_in_order)},
    {TEST(a_record_across_the_end_is_contiguous)},
    {TEST(records_are_aligned_to_8)},
    {TEST(a_ring_takes_its_capacity_and_not_one_record_more)},
    {TEST(two_of_the_longest_records_fill_the_ring)},
    {TEST(the_writer_waits_for_the_slowest_reader)},
    {TEST(the_writer_waits_for_a_slot_that_nobody_has_taken_yet)},
    {TEST(the_heads_are_scanned_only_when_the_limit_does_not_suffice)},
    {TEST(a_writer_goes_on_where_the_last_one_stopped)},
    {TEST(publish_rings_only_if_somebody_sleeps)},
    {TEST(release_rings_nobody_while_the_writer_is_awake)},
    {TEST(release_rings_when_a_quarter_of_the_ring_is_free)},
    {TEST(release_rings_when_a_long_record_fits)},
    {TEST(release_rings_for_one_record_when_the_writer_asks_for_no_more)},
    {TEST(every_reader_that_crosses_the_wanted_position_rings)},
    {TEST(release_does_not_ring_for_other_bits_of_a_shared_bell)},
    {0},
};

/* --stop: at the first failure. --emulated: without the claims that need the kernel itself. */
int main(int argc, char **argv) {
    const struct test *tables[] = {layout_tests,     ring_tests,     end_tests,   message_tests,
                                   corruption_tests, wait_tests,     wake_tests,  strategy_tests,
                                   litmus_tests,     liveness_tests, claim_tests, status_tests,
                                   recorder_tests};
    struct tally tally = {.stop = argc > 1 && strcmp(argv[1], "--stop") == 0,
                          .emulated = argc > 1 && strcmp(argv[1], "--emulated") == 0};
    bool all = true;
    for (size_t i = 0; i < sizeof tables / sizeof tables[0] && (all || !tally.stop); i++)
        all = check_all(tables[i], &tally) && all;
    printf("%s ring_test: %zu claims", all ? "OK" : "FAILED", tally.n_run);
    printf(tally.emulated ? ", %zu more need the kernel itself\n" : "\n", tally.n_left_out);
    return all ? 0 : 1;
}
