/* The status page: what each rank is doing, and the engine's bell.
 *
 * One thread of a rank writes that rank's line. Any process may read it at any time. */
#ifndef MPSPMD_RUN_STATUS_H
#define MPSPMD_RUN_STATUS_H

#include <stdbool.h>
#include <stddef.h>

#include "ring/layout.h"

/* One process's mapping of a page. */
struct status {
    struct status_page *shared;
    uint32_t n_ranks; /* as it was checked: others may write into the page */
    bool writable;
};

size_t status_segment_bytes(uint32_t n_ranks);

/* Writes the header into a segment of zeros. 0, or an errno value: EINVAL when `n_ranks` is not
 * from 1 to RING_MAX_READERS. */
int status_format(int fd, uint32_t n_ranks, uint32_t engine_pid, uint64_t ring_inode,
                  uint32_t cores);

/* Sets how many cores the processes of the run may use: 1 or more. All waits use it from now on. */
static inline void status_set_cores(struct status_page *page, uint32_t cores) {
    atomic_store_explicit(&page->spinners.allowed, cores > 0 ? cores - 1 : 0, memory_order_relaxed);
}

/* Read-only when the descriptor is. 0, or an errno value: EPROTO when the segment isn't a status
 * page of this version. */
int status_map(struct status *status, int fd);
void status_unmap(struct status *status);

/* A change of phase. `method` of up to METHOD_BYTES - 1 bytes, or NULL to leave it and `step`.
 * Returns the time that it has noted. */
uint64_t status_enter(struct status_line *line, enum status_phase phase, uint64_t step,
                      const char *method, size_t method_bytes);

/* Adds to a counter of which this thread is the only writer. */
static inline void status_add(_Atomic uint64_t *counter, uint64_t amount) {
    uint64_t old = atomic_load_explicit(counter, memory_order_relaxed);
    atomic_store_explicit(counter, old + amount, memory_order_relaxed);
}

struct status_snapshot {
    uint32_t phase;
    uint32_t pid;
    uint64_t step;
    uint64_t since_ns;
    char method[METHOD_BYTES];
};

/* A consistent copy of what status_enter() writes. */
void status_read(const struct status_line *line, struct status_snapshot *snapshot);

/* A line as it goes to another machine, whose clock differs. */
struct status_copy {
    uint32_t phase;
    uint32_t pid;
    uint64_t step;
    uint64_t age_ns; /* since the phase began */
    uint64_t method[METHOD_BYTES / 8];
    uint64_t counters[N_COUNTERS];
};

void status_copy_line(struct status_line *line, struct status_copy *copy);

/* Writes what another machine has copied. The line has no other writer. */
void status_paste_line(struct status_line *line, const struct status_copy *copy, uint32_t node);

#endif
