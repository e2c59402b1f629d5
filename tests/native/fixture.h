/* A ring in a memfd with its writer and its readers, all in this process, and the plainest ways to
 * move a record through it. */
#ifndef NATIVE_FIXTURE_H
#define NATIVE_FIXTURE_H

#include "ring/hooks.h"
#include "ring/message.h"
#include "ring/ring_map.h"
#include "wait/wait.h"

struct fixture {
    int fd;
    struct ring ring;
    struct ring_writer writer;
    struct ring_reader readers[RING_MAX_READERS];
};

uint64_t page_size(void);

/* A memfd of so many zero bytes. */
int new_segment(uint64_t bytes);

/* Expects the ring to be free, and takes it. */
void open_writer(struct ring_writer *writer, struct ring *ring);

/* Formats, maps and attaches every reader. */
void open_ring(struct fixture *fixture, uint64_t capacity, uint32_t n_readers);

/* One record of `length` bytes that each hold `fill`. */
enum ring_result put(struct fixture *fixture, uint32_t length, unsigned char fill);

/* Expects that record next, and releases it. */
void take(struct fixture *fixture, uint32_t slot, uint32_t length, unsigned char fill);

/* Puts records whose place in the ring is `bytes` each until there is no space. Returns how many.
 */
uint32_t fill_ring(struct fixture *fixture, uint32_t bytes);

uint32_t times_rung(struct bell *bell);

/* A waiter for a ring's end, with counters that nobody looks at. */
struct waiter reader_waiter(struct fixture *fixture, uint32_t slot);
struct waiter writer_waiter(struct fixture *fixture);

/* Called at the points of hooks.h by the thread that set it. */
extern _Thread_local void (*on_hook)(enum hook point);

#endif
