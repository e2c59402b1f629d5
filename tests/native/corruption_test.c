/* Whatever is in the segment, a reader answers RING_CORRUPT and stays within its mapping. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "fixture.h"

static struct record_header *header_at(struct fixture *f, uint64_t position) {
    return (struct record_header *)(f->ring.data + (position & (f->ring.capacity - 1)));
}

static enum ring_result peek(struct fixture *f) {
    struct record record;
    return ring_peek(&f->readers[0], &record);
}

static void set_tail(struct fixture *f, uint64_t tail) {
    atomic_store(&f->ring.shared->tail, tail);
}

static void a_length_beyond_the_tail_is_corrupt(void) {
    uint32_t lengths[] = {9, 100, 4096, INT32_MAX, UINT32_MAX - 16, UINT32_MAX};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        struct fixture f;
        open_ring(&f, page_size(), 1);
        put(&f, 8, 'a');
        header_at(&f, 0)->length = lengths[i];
        CHECK_EQUAL(peek(&f), RING_CORRUPT);
    }
}

static void a_tail_beyond_the_capacity_is_corrupt(void) {
    struct fixture f;
    open_ring(&f, page_size(), 1);
    set_tail(&f, f.ring.capacity + 8);
    CHECK_EQUAL(peek(&f), RING_CORRUPT);
}

static void a_tail_that_goes_back_is_corrupt(void) {
    struct fixture f;
    open_ring(&f, page_size(), 1);
    put(&f, 100, 'a');
    take(&f, 0, 100, 'a');
    set_tail(&f, 8);
    CHECK_EQUAL(peek(&f), RING_CORRUPT);
}

static void a_tail_too_near_for_a_header_is_corrupt(void) {
    struct fixture f;
    open_ring(&f, page_size(), 1);
    set_tail(&f, sizeof(struct record_header) - 1);
    CHECK_EQUAL(peek(&f), RING_CORRUPT);
}

static void a_head_that_lies_is_corrupt(void) {
    struct fixture f;
    struct ring_reader reader;
    f.fd = new_segment(ring_segment_bytes(page_size(), 1));
    CHECK_EQUAL(ring_format(f.fd, page_size(), 1), 0);
    CHECK_EQUAL(ring_map(&f.ring, f.fd, NULL, NULL), 0);
    atomic_store(&f.ring.shared->readers[0].head, UINT64_MAX - 4);
    CHECK(ring_attach(&reader, &f.ring, 0, 1));
    f.readers[0] = reader;
    CHECK_EQUAL(peek(&f), RING_CORRUPT);
}

/* A writer that believed it would overwrite what has not been read, or wait for ever. */
static void a_head_where_no_reader_can_be_ends_the_writers_wait(void) {
    uint64_t heads[] = {1 << 20, UINT64_MAX, INT64_MAX};
    for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++) {
        struct fixture f;
        open_ring(&f, page_size(), 2);
        uint32_t count = fill_ring(&f, 256);
        for (uint32_t taken = 0; taken < count; taken++)
            take(&f, 0, 240, 'f');
        atomic_store(&f.ring.shared->readers[1].head, heads[i]);
        CHECK(ring_writable(&f.writer, 0));
        CHECK_EQUAL(put(&f, 0, 'x'), RING_CORRUPT);
        atomic_store(&f.ring.shared->readers[1].head, 256);
        CHECK_EQUAL(put(&f, 240, 'x'), RING_OK);
    }
}

static void a_writer_does_not_begin_at_a_tail_that_no_writer_leaves(void) {
    uint64_t tails[] = {4, 8 + page_size(), UINT64_MAX - 7};
    for (size_t i = 0; i < sizeof tails / sizeof tails[0]; i++) {
        struct fixture f;
        uint32_t holder;
        open_ring(&f, page_size(), 1);
        ring_writer_release(&f.writer);
        set_tail(&f, tails[i]);
        CHECK_EQUAL(ring_writer_init(&f.writer, &f.ring, 1, &holder), RING_CORRUPT);
        set_tail(&f, 0);
        CHECK_EQUAL(ring_writer_init(&f.writer, &f.ring, 1, &holder), RING_OK);
    }
}

static void publish(struct fixture *f, struct record_header header, const void *payload) {
    enum ring_result result;
    unsigned char *to = ring_claim(&f->writer, header.length, &result);
    CHECK(to != NULL);
    if (header.length)
        memcpy(to, payload, header.length);
    ring_publish(&f->writer, header);
}

enum { FIRST = RECORD_PART | RECORD_FIRST, MIDDLE = RECORD_PART, LAST = RECORD_PART | RECORD_LAST };

/* A fragment of a message of three pages; a first one holds its length, and all of them zeros. */
static void put_fragment(struct fixture *f, uint16_t flags, uint32_t length, uint64_t tag) {
    unsigned char zeros[4096] = {0};
    uint64_t total = 3 * page_size();
    if (flags & RECORD_FIRST)
        memcpy(zeros, &total, sizeof total);
    publish(f, (struct record_header){.length = length, .kind = 1, .flags = flags, .tag = tag},
            zeros);
}

/* The end of reading, with a buffer for whatever is asked for, up to a MiB. */
static enum ring_result receive_all(struct fixture *f) {
    struct incoming in = {0};
    for (;;) {
        enum ring_result result = message_receive(&f->readers[0], &in);
        if (result == RING_NEED_BUFFER) {
            CHECK(!in.buffer && in.total > 0);
            if (in.total > 1 << 20)
                return RING_NEED_BUFFER;
            in.buffer = malloc(in.total);
            CHECK(in.buffer != NULL);
            continue;
        }
        unsigned char *buffer = message_take(&in);
        if (result == RING_OK && !buffer) {
            const unsigned char *end = in.record.payload + in.record.header.length;
            CHECK(in.record.payload >= f->ring.data && end <= f->ring.data + 2 * f->ring.capacity);
            ring_release(&f->readers[0], &in.record);
        }
        free(buffer);
        if (result != RING_OK && result != RING_ABORTED)
            return result;
    }
}

static void a_message_of_right_fragments_is_not_corrupt(void) {
    struct fixture f;
    open_ring(&f, 4 * page_size(), 1);
    put_fragment(&f, FIRST, 8 + 1024, 5);
    for (uint64_t sent = 1024; sent < 3 * page_size() - 1024; sent += 1024)
        put_fragment(&f, MIDDLE, 1024, 5);
    put_fragment(&f, LAST, 1024, 5);
    CHECK_EQUAL(receive_all(&f), RING_AGAIN);
}

static void check_corrupt_flags(uint16_t flags, bool assembling) {
    struct fixture f;
    open_ring(&f, 4 * page_size(), 1);
    if (assembling)
        put_fragment(&f, FIRST, 1024, 5);
    put_fragment(&f, flags, flags & RECORD_ABORT ? 0 : 1024, 5);
    if (receive_all(&f) != RING_CORRUPT)
        check_failed(__FILE__, __LINE__, "flags %x are taken%s", flags,
                     assembling ? " between fragments" : "");
}

static void flags_that_no_writer_sets_are_corrupt(void) {
    uint16_t ever[] = {RECORD_FIRST,
                       RECORD_LAST,
                       RECORD_FIRST | RECORD_LAST,
                       RECORD_ABORT | RECORD_PART,
                       RECORD_ABORT | RECORD_LAST,
                       RECORD_ABORT | 0x8000,
                       RECORD_PART | 0x10,
                       FIRST | RECORD_LAST,
                       FIRST | 0x8000,
                       0x10,
                       0xffff};
    for (size_t i = 0; i < sizeof ever / sizeof ever[0]; i++) {
        check_corrupt_flags(ever[i], false);
        check_corrupt_flags(ever[i], true);
    }
}

static void fragments_out_of_sequence_are_corrupt(void) {
    check_corrupt_flags(MIDDLE, false);
    check_corrupt_flags(LAST, false);
    check_corrupt_flags(RECORD_ABORT, false);
    check_corrupt_flags(FIRST, true);
    check_corrupt_flags(0, true);
    check_corrupt_flags(LAST, true); /* too early: most of the message is missing */
}

static void a_fragment_of_another_message_is_corrupt(void) {
    struct fixture f;
    open_ring(&f, 4 * page_size(), 1);
    put_fragment(&f, FIRST, 1024, 5);
    put_fragment(&f, MIDDLE, 1024, 6);
    CHECK_EQUAL(receive_all(&f), RING_CORRUPT);
}

static void more_than_the_total_is_corrupt(void) {
    struct fixture f;
    open_ring(&f, 4 * page_size(), 1);
    put_fragment(&f, FIRST, 8 + 1024, 5);
    for (uint64_t sent = 1024; sent < 3 * page_size() - 1024; sent += 1024)
        put_fragment(&f, MIDDLE, 1024, 5);
    put_fragment(&f, LAST, 1025, 5);
    CHECK_EQUAL(receive_all(&f), RING_CORRUPT);
}

static void an_abort_with_a_payload_is_corrupt(void) {
    struct fixture f;
    open_ring(&f, 4 * page_size(), 1);
    put_fragment(&f, FIRST, 1024, 5);
    put_fragment(&f, RECORD_ABORT, 8, 5);
    CHECK_EQUAL(receive_all(&f), RING_CORRUPT);
}

static void a_first_fragment_without_room_for_a_total_is_corrupt(void) {
    struct fixture f;
    open_ring(&f, page_size(), 1);
    put_fragment(&f, FIRST, 7, 5);
    CHECK_EQUAL(receive_all(&f), RING_CORRUPT);
}

static void a_total_that_no_writer_sends_in_fragments_is_corrupt(void) {
    uint64_t longest = page_size() / 2 - sizeof(struct record_header);
    uint64_t totals[] = {0, 1, longest, (uint64_t)PTRDIFF_MAX + 1, UINT64_MAX};
    for (size_t i = 0; i < sizeof totals / sizeof totals[0]; i++) {
        struct fixture f;
        open_ring(&f, page_size(), 1);
        publish(&f, (struct record_header){.length = 8, .kind = 1, .flags = FIRST}, &totals[i]);
        if (receive_all(&f) != RING_CORRUPT)
            check_failed(__FILE__, __LINE__, "a total of %llu is taken",
                         (unsigned long long)totals[i]);
    }
}

static uint64_t next_random(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    return *state ^= *state << 17;
}

/* Good streams with random damage get further into the code than noise does. */
static void random_damage_is_never_a_crash(void) {
    struct fixture f;
    uint64_t random = 0x9e3779b97f4a7c15, n_corrupt = 0;
    open_ring(&f, page_size(), 1);
    for (int i = 0; i < 20000; i++) {
        f.readers[0].head = f.readers[0].tail = f.writer.tail = next_random(&random) & 0xfff8;
        set_tail(&f, f.writer.tail);
        atomic_store(&f.ring.shared->readers[0].head, f.writer.tail);
        f.writer.limit = f.writer.tail + f.ring.capacity;
        uint64_t start = f.writer.tail;
        for (int n = 0; n < 8; n++) {
            uint16_t flags[] = {0, 0, FIRST, MIDDLE, MIDDLE, LAST, RECORD_ABORT};
            put_fragment(&f, flags[next_random(&random) % 7], next_random(&random) % 400, 5);
        }
        for (int n = 0; n < 3; n++) {
            uint64_t at = (start + next_random(&random) % (f.writer.tail - start));
            f.ring.data[at & (f.ring.capacity - 1)] = (unsigned char)next_random(&random);
        }
        if (next_random(&random) % 8 == 0)
            set_tail(&f, start + next_random(&random) % (2 * f.ring.capacity));
        n_corrupt += receive_all(&f) == RING_CORRUPT;
    }
    CHECK(n_corrupt > 5000);
}

const struct test corruption_tests[] = {
    {TEST(a_length_beyond_the_tail_is_corrupt)},
    {TEST(a_tail_beyond_the_capacity_is_corrupt)},
    {TEST(a_tail_that_goes_back_is_corrupt)},
    {TEST(a_tail_too_near_for_a_header_is_corrupt)},
    {TEST(a_head_that_lies_is_corrupt)},
    {TEST(a_head_where_no_reader_can_be_ends_the_writers_wait)},
    {TEST(a_writer_does_not_begin_at_a_tail_that_no_writer_leaves)},
    {TEST(a_message_of_right_fragments_is_not_corrupt)},
    {TEST(flags_that_no_writer_sets_are_corrupt)},
    {TEST(fragments_out_of_sequence_are_corrupt)},
    {TEST(a_fragment_of_another_message_is_corrupt)},
    {TEST(more_than_the_total_is_corrupt)},
    {TEST(an_abort_with_a_payload_is_corrupt)},
    {TEST(a_first_fragment_without_room_for_a_total_is_corrupt)},
    {TEST(a_total_that_no_writer_sends_in_fragments_is_corrupt)},
    {TEST(random_damage_is_never_a_crash)},
    {0},
};
