#include "fixture.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "check.h"

_Thread_local void (*on_hook)(enum hook point);

void test_hook(enum hook point) {
    if (on_hook)
        on_hook(point);
}

uint64_t page_size(void) {
    return (uint64_t)sysconf(_SC_PAGESIZE);
}

int new_segment(uint64_t bytes) {
    int fd = memfd_create("ring", MFD_CLOEXEC);
    CHECK(fd >= 0);
    CHECK_EQUAL(ftruncate(fd, (off_t)bytes), 0);
    return fd;
}

void open_ring(struct fixture *fixture, uint64_t capacity, uint32_t n_readers) {
    fixture->fd = new_segment(ring_segment_bytes(capacity, n_readers));
    CHECK_EQUAL(ring_format(fixture->fd, capacity, n_readers), 0);
    CHECK_EQUAL(ring_map(&fixture->ring, fixture->fd, NULL, NULL), 0);
    open_writer(&fixture->writer, &fixture->ring);
    for (uint32_t slot = 0; slot < n_readers; slot++)
        CHECK(ring_attach(&fixture->readers[slot], &fixture->ring, slot, (uint32_t)getpid()));
}

void open_writer(struct ring_writer *writer, struct ring *ring) {
    uint32_t holder;
    CHECK_EQUAL(ring_writer_init(writer, ring, (uint32_t)getpid(), &holder), RING_OK);
}

enum ring_result put(struct fixture *fixture, uint32_t length, unsigned char fill) {
    enum ring_result result = RING_OK;
    unsigned char *payload = ring_claim(&fixture->writer, length, &result);
    if (!payload)
        return result;
    memset(payload, fill, length);
    ring_publish(&fixture->writer,
                 (struct record_header){.length = length, .kind = fill, .tag = length});
    return RING_OK;
}

void take(struct fixture *fixture, uint32_t slot, uint32_t length, unsigned char fill) {
    struct record record;
    CHECK_EQUAL(ring_peek(&fixture->readers[slot], &record), RING_OK);
    CHECK_EQUAL(record.header.length, length);
    CHECK_EQUAL(record.header.kind, fill);
    CHECK_EQUAL(record.header.tag, length);
    for (uint32_t i = 0; i < length; i++)
        CHECK_EQUAL(record.payload[i], fill);
    ring_release(&fixture->readers[slot], &record);
}

uint32_t fill_ring(struct fixture *fixture, uint32_t bytes) {
    uint32_t length = bytes - (uint32_t)sizeof(struct record_header), count = 0;
    while (put(fixture, length, 'f') == RING_OK)
        count++;
    return count;
}

uint32_t times_rung(struct bell *bell) {
    return atomic_load(&bell->rung);
}

static _Thread_local _Atomic uint64_t unread_counters[N_COUNTERS];

static bool is_readable(void *reader) {
    return ring_readable(reader);
}

static bool is_writable(void *writer) {
    return ring_writable(writer, 0);
}

struct waiter reader_waiter(struct fixture *fixture, uint32_t slot) {
    return (struct waiter){fixture->ring.data_bell, UINT64_C(1) << slot, is_readable,
                           &fixture->readers[slot], unread_counters};
}

struct waiter writer_waiter(struct fixture *fixture) {
    ring_want(&fixture->writer, 0);
    return (struct waiter){fixture->ring.space_bell, SPACE_BIT, is_writable, &fixture->writer,
                           unread_counters};
}
