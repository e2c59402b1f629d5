/* Messages of any size over records. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "fixture.h"

enum { KIND = 7, TAG = 99 };

static unsigned char byte_at(uint64_t i) {
    return (unsigned char)(i * 131 >> 3);
}

static unsigned char *new_bytes(uint64_t length) {
    unsigned char *bytes = malloc(length + 1);
    CHECK(bytes != NULL);
    for (uint64_t i = 0; i < length; i++)
        bytes[i] = byte_at(i);
    return bytes;
}

static struct outgoing begin(const struct iovec *part) {
    struct outgoing message;
    message_begin(&message, part, 1, KIND, TAG);
    return message;
}

static void check_bytes(const unsigned char *bytes, uint64_t length) {
    for (uint64_t i = 0; i < length; i++)
        CHECK_EQUAL(bytes[i], byte_at(i));
}

/* Receives until a message is there, or the ring has no more; gives buffers as asked. */
static enum ring_result receive(struct fixture *f, uint32_t slot, struct incoming *in) {
    enum ring_result result;
    while ((result = message_receive(&f->readers[slot], in)) == RING_NEED_BUFFER) {
        CHECK(!in->buffer);
        in->buffer = malloc(in->total);
        CHECK(in->buffer != NULL);
    }
    return result;
}

static void check_whole(struct fixture *f, struct incoming *in, uint64_t length) {
    CHECK_EQUAL(receive(f, 0, in), RING_OK);
    CHECK(message_take(in) == NULL);
    CHECK_EQUAL(in->record.header.length, length);
    CHECK_EQUAL(in->record.header.kind, KIND);
    CHECK_EQUAL(in->record.header.tag, TAG);
    check_bytes(in->record.payload, length);
    ring_release(&f->readers[0], &in->record);
}

/* Sends one message of `length` while slot 0 receives it. Returns its number of records. */
static uint32_t pass_in_fragments(struct fixture *f, uint64_t length) {
    struct iovec part = {new_bytes(length), length};
    struct outgoing out = begin(&part);
    struct incoming in = {0};
    enum ring_result sent = RING_AGAIN, received = RING_AGAIN;
    uint32_t records = 0;
    while (received == RING_AGAIN) {
        uint64_t before = f->writer.tail;
        if (sent == RING_AGAIN)
            sent = message_send(&f->writer, &out);
        records += f->writer.tail != before;
        received = receive(f, 0, &in);
    }
    CHECK_EQUAL(sent, RING_OK);
    CHECK_EQUAL(received, RING_OK);
    CHECK_EQUAL(in.total, length);
    CHECK_EQUAL(in.kind, KIND);
    CHECK_EQUAL(in.tag, TAG);
    unsigned char *buffer = message_take(&in);
    check_bytes(buffer, length);
    CHECK(message_take(&in) == NULL);
    CHECK_EQUAL(receive(f, 0, &in), RING_AGAIN);
    free(buffer);
    free(part.iov_base);
    return records;
}

static void an_empty_message_arrives(void) {
    struct fixture f;
    struct incoming in = {0};
    struct outgoing out;
    open_ring(&f, page_size(), 1);
    message_begin(&out, NULL, 0, KIND, TAG);
    CHECK_EQUAL(message_send(&f.writer, &out), RING_OK);
    check_whole(&f, &in, 0);
    CHECK_EQUAL(receive(&f, 0, &in), RING_AGAIN);
}

static void parts_are_gathered_and_empty_ones_skipped(void) {
    struct fixture f;
    struct incoming in = {0};
    struct outgoing out;
    open_ring(&f, page_size(), 1);
    unsigned char *bytes = new_bytes(100);
    struct iovec parts[] = {{NULL, 0}, {bytes, 1},       {bytes + 1, 60},
                            {NULL, 0}, {bytes + 61, 39}, {NULL, 0}};
    message_begin(&out, parts, 6, KIND, TAG);
    CHECK_EQUAL(message_send(&f.writer, &out), RING_OK);
    check_whole(&f, &in, 100);
    free(bytes);
}

static void a_message_of_exactly_the_longest_record_is_one_record(void) {
    struct fixture f;
    struct incoming in = {0};
    open_ring(&f, page_size(), 1);
    uint64_t length = ring_max_record(&f.ring);
    struct iovec part = {new_bytes(length), length};
    struct outgoing out = begin(&part);
    CHECK_EQUAL(message_next_length(&f.writer, &out), length);
    CHECK_EQUAL(message_send(&f.writer, &out), RING_OK);
    CHECK_EQUAL(f.writer.tail, f.ring.capacity / 2);
    check_whole(&f, &in, length);
    free(part.iov_base);
}

static void one_byte_more_goes_as_fragments(void) {
    struct fixture f;
    struct incoming in = {0};
    open_ring(&f, page_size(), 1);
    uint64_t length = (uint64_t)ring_max_record(&f.ring) + 1;
    struct iovec part = {new_bytes(length), length};
    struct outgoing out = begin(&part);
    CHECK_EQUAL(message_send(&f.writer, &out), RING_OK);
    struct record record;
    CHECK_EQUAL(ring_peek(&f.readers[0], &record), RING_OK);
    CHECK_EQUAL(record.header.flags, RECORD_PART | RECORD_FIRST);
    CHECK_EQUAL(receive(&f, 0, &in), RING_OK);
    CHECK_EQUAL(in.total, length);
    unsigned char *buffer = message_take(&in);
    check_bytes(buffer, length);
    free(buffer);
    free(part.iov_base);
}

static void a_message_larger_than_the_ring_arrives_at_any_length(void) {
    struct fixture f;
    open_ring(&f, page_size(), 1);
    uint64_t fragment = f.ring.capacity / 4 - sizeof(struct record_header);
    for (uint64_t n = 3; n < 15; n += 3)
        for (uint64_t more = 0; more < 17; more++) /* about the ends of the last fragment */
            pass_in_fragments(&f, n * fragment - 8 - 8 + more);
    CHECK(pass_in_fragments(&f, 3 * f.ring.capacity) > 3);
}

static void a_message_waits_for_the_space_of_its_next_record(void) {
    struct fixture f;
    open_ring(&f, page_size(), 1);
    uint64_t length = 2 * f.ring.capacity;
    struct iovec part = {new_bytes(length), length};
    struct outgoing out = begin(&part);
    CHECK_EQUAL(message_send(&f.writer, &out), RING_AGAIN);
    CHECK_EQUAL(f.writer.tail, f.ring.capacity);
    CHECK(!ring_writable(&f.writer, message_next_length(&f.writer, &out)));
    struct record record;
    CHECK_EQUAL(ring_peek(&f.readers[0], &record), RING_OK);
    ring_release(&f.readers[0], &record);
    CHECK(ring_writable(&f.writer, message_next_length(&f.writer, &out)));
    CHECK_EQUAL(message_send(&f.writer, &out), RING_AGAIN);
    CHECK_EQUAL(f.writer.tail, f.ring.capacity / 4 * 5);
    free(part.iov_base);
}

static void each_fragment_rings_a_sleeping_reader(void) {
    struct fixture f;
    open_ring(&f, page_size(), 1);
    bell_prepare(f.ring.data_bell, 1);
    struct iovec part = {new_bytes(2 * f.ring.capacity), 2 * f.ring.capacity};
    struct outgoing out = begin(&part);
    CHECK_EQUAL(message_send(&f.writer, &out), RING_AGAIN);
    CHECK_EQUAL(times_rung(f.ring.data_bell), 4);
    free(part.iov_base);
}

static void a_reader_without_memory_loses_nothing(void) {
    struct fixture f;
    struct incoming in = {0};
    open_ring(&f, page_size(), 1);
    uint64_t length = (uint64_t)ring_max_record(&f.ring) + 1;
    struct iovec part = {new_bytes(length), length};
    struct outgoing out = begin(&part);
    CHECK_EQUAL(message_send(&f.writer, &out), RING_OK);
    for (int i = 0; i < 3; i++) {
        CHECK_EQUAL(message_receive(&f.readers[0], &in), RING_NEED_BUFFER);
        CHECK_EQUAL(in.total, length);
    }
    CHECK_EQUAL(receive(&f, 0, &in), RING_OK);
    unsigned char *buffer = message_take(&in);
    check_bytes(buffer, length);
    free(buffer);
    free(part.iov_base);
}

static void send_short(struct fixture *f, enum ring_result expected) {
    struct iovec part = {new_bytes(10), 10};
    struct outgoing out = begin(&part);
    CHECK_EQUAL(message_send(&f->writer, &out), expected);
    message_abandon(&f->writer, &out);
    free(part.iov_base);
}

/* Leaves a message of twice the ring after the fragments that fit. */
static void tear(struct fixture *f) {
    struct iovec part = {new_bytes(2 * f->ring.capacity), 2 * f->ring.capacity};
    struct outgoing out = begin(&part);
    CHECK_EQUAL(message_send(&f->writer, &out), RING_AGAIN);
    message_abandon(&f->writer, &out);
    CHECK(f->writer.torn);
    free(part.iov_base);
}

static void a_torn_message_is_aborted_and_the_next_one_arrives(void) {
    struct fixture f;
    struct incoming in = {0};
    open_ring(&f, page_size(), 1);
    tear(&f);
    CHECK_EQUAL(receive(&f, 0, &in), RING_AGAIN);
    send_short(&f, RING_OK);
    CHECK_EQUAL(receive(&f, 0, &in), RING_ABORTED);
    unsigned char *buffer = message_take(&in);
    CHECK(buffer != NULL);
    free(buffer);
    check_whole(&f, &in, 10);
    pass_in_fragments(&f, 3 * f.ring.capacity);
}

static void the_abort_waits_for_space_and_outlives_abandoned_messages(void) {
    struct fixture f;
    struct incoming in = {0};
    struct outgoing next;
    open_ring(&f, page_size(), 1);
    tear(&f);
    send_short(&f, RING_AGAIN); /* no space even for the abort; abandoned with nothing sent */
    CHECK(f.writer.torn);
    message_begin(&next, NULL, 0, KIND, TAG);
    CHECK_EQUAL(message_next_length(&f.writer, &next), 0);
    CHECK_EQUAL(receive(&f, 0, &in), RING_AGAIN);
    send_short(&f, RING_OK);
    CHECK(!f.writer.torn);
    CHECK_EQUAL(receive(&f, 0, &in), RING_ABORTED);
    free(message_take(&in));
    check_whole(&f, &in, 10);
}

static void abandoning_what_is_sent_or_not_begun_tears_nothing(void) {
    struct fixture f;
    open_ring(&f, page_size(), 1);
    send_short(&f, RING_OK); /* abandons it, too */
    CHECK(!f.writer.torn);
    fill_ring(&f, 32);
    send_short(&f, RING_AGAIN);
    CHECK(!f.writer.torn);
}

static void a_message_ends_with_its_ring(void) {
    struct fixture f;
    struct incoming in = {0};
    open_ring(&f, page_size(), 1);
    tear(&f);
    ring_close(&f.ring);
    CHECK_EQUAL(receive(&f, 0, &in), RING_CLOSED);
    free(message_take(&in));
    send_short(&f, RING_CLOSED);
}

const struct test message_tests[] = {
    {TEST(an_empty_message_arrives)},
    {TEST(parts_are_gathered_and_empty_ones_skipped)},
    {TEST(a_message_of_exactly_the_longest_record_is_one_record)},
    {TEST(one_byte_more_goes_as_fragments)},
    {TEST(a_message_larger_than_the_ring_arrives_at_any_length)},
    {TEST(a_message_waits_for_the_space_of_its_next_record)},
    {TEST(each_fragment_rings_a_sleeping_reader)},
    {TEST(a_reader_without_memory_loses_nothing)},
    {TEST(a_torn_message_is_aborted_and_the_next_one_arrives)},
    {TEST(the_abort_waits_for_space_and_outlives_abandoned_messages)},
    {TEST(abandoning_what_is_sent_or_not_begun_tears_nothing)},
    {TEST(a_message_ends_with_its_ring)},
    {0},
};
