#include "run/status.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ring/clock.h"
#include "ring/segment.h"

size_t status_segment_bytes(uint32_t n_ranks) {
    return sizeof(struct status_page) + n_ranks * sizeof(struct status_line);
}

static bool valid_ranks(uint32_t n_ranks) {
    return n_ranks >= 1 && n_ranks <= RING_MAX_READERS;
}

int status_format(int fd, uint32_t n_ranks, uint32_t engine_pid, uint64_t ring_inode,
                  uint32_t cores) {
    if (!valid_ranks(n_ranks))
        return EINVAL;
    size_t bytes = status_segment_bytes(n_ranks);
    void *memory;
    int error = segment_map_new(fd, bytes, bytes, &memory);
    if (error)
        return error;
    struct status_page *page = memory;
    page->about.version = LAYOUT_VERSION;
    page->about.n_ranks = n_ranks;
    page->about.engine_pid = engine_pid;
    page->about.ring_inode = ring_inode;
    status_set_cores(page, cores);
    page->about.magic = STATUS_MAGIC;
    munmap(page, bytes);
    return 0;
}

/* Reads and checks the header of a segment; nothing in it is trusted before. */
static int read_about(int fd, uint32_t *n_ranks) {
    struct status_page head;
    int error = segment_read_about(fd, &head.about, sizeof head.about, STATUS_MAGIC);
    if (error)
        return error;
    if (!valid_ranks(head.about.n_ranks))
        return EPROTO;
    *n_ranks = head.about.n_ranks;
    return segment_check_size(fd, status_segment_bytes(head.about.n_ranks));
}

int status_map(struct status *status, int fd) {
    uint32_t n_ranks;
    int error = read_about(fd, &n_ranks);
    if (error)
        return error;
    size_t bytes = status_segment_bytes(n_ranks);
    bool writable = (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDWR;
    int access = PROT_READ | (writable ? PROT_WRITE : 0);
    void *page = mmap(NULL, bytes, access, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED)
        return errno;
    /* A forked child is none of the run's processes. */
    if (madvise(page, bytes, MADV_DONTFORK) != 0) {
        error = errno;
        munmap(page, bytes);
        return error;
    }
    *status = (struct status){.shared = page, .n_ranks = n_ranks, .writable = writable};
    return 0;
}

void status_unmap(struct status *status) {
    if (status->shared)
        munmap(status->shared, status_segment_bytes(status->n_ranks));
    status->shared = NULL;
}

uint64_t status_enter(struct status_line *line, enum status_phase phase, uint64_t step,
                      const char *method, size_t method_bytes) {
    uint32_t sequence = atomic_load_explicit(&line->sequence, memory_order_relaxed);
    uint64_t now = monotonic_ns();
    if (atomic_load_explicit(&line->phase, memory_order_relaxed) == PHASE_WAITING)
        status_add(&line->counters[COUNT_IDLE_NS],
                   now - atomic_load_explicit(&line->since_ns, memory_order_relaxed));
    /* Odd until done. Each store below is a release, so that a reader that sees any of them also
     * sees the odd number, and looks again. */
    atomic_store_explicit(&line->sequence, sequence + 1, memory_order_relaxed);
    atomic_store_explicit(&line->phase, phase, memory_order_release);
    atomic_store_explicit(&line->since_ns, now, memory_order_release);
    if (method) {
        uint64_t words[METHOD_BYTES / 8] = {0};
        memcpy(words, method, method_bytes < METHOD_BYTES ? method_bytes : METHOD_BYTES - 1);
        atomic_store_explicit(&line->step, step, memory_order_release);
        for (int i = 0; i < METHOD_BYTES / 8; i++)
            atomic_store_explicit(&line->method[i], words[i], memory_order_release);
    }
    atomic_store_explicit(&line->sequence, sequence + 2, memory_order_release);
    return now;
}

void status_read(const struct status_line *line, struct status_snapshot *snapshot) {
    uint64_t words[METHOD_BYTES / 8];
    uint32_t before, after;
    int tries = 0;
    /* A rank that was killed in the middle leaves an odd number: after many tries, take what is
     * there. */
    do {
        before = atomic_load_explicit(&line->sequence, memory_order_acquire);
        snapshot->phase = atomic_load_explicit(&line->phase, memory_order_acquire);
        snapshot->since_ns = atomic_load_explicit(&line->since_ns, memory_order_acquire);
        snapshot->step = atomic_load_explicit(&line->step, memory_order_acquire);
        for (int i = 0; i < METHOD_BYTES / 8; i++)
            words[i] = atomic_load_explicit(&line->method[i], memory_order_acquire);
        after = atomic_load_explicit(&line->sequence, memory_order_acquire);
    } while ((before != after || before & 1) && ++tries < 10000);
    memcpy(snapshot->method, words, sizeof words);
    snapshot->method[METHOD_BYTES - 1] = 0;
    snapshot->pid = atomic_load_explicit(&line->pid, memory_order_relaxed);
}

void status_copy_line(struct status_line *line, struct status_copy *copy) {
    struct status_snapshot now;
    status_read(line, &now);
    uint64_t clock = monotonic_ns();
    *copy = (struct status_copy){.phase = now.phase,
                                 .pid = now.pid,
                                 .step = now.step,
                                 .age_ns = clock > now.since_ns ? clock - now.since_ns : 0};
    memcpy(copy->method, now.method, sizeof copy->method);
    for (int i = 0; i < N_COUNTERS; i++)
        copy->counters[i] = atomic_load_explicit(&line->counters[i], memory_order_relaxed);
}

void status_paste_line(struct status_line *line, const struct status_copy *copy, uint32_t node) {
    uint32_t sequence = atomic_load_explicit(&line->sequence, memory_order_relaxed);
    atomic_store_explicit(&line->sequence, sequence + 1, memory_order_relaxed);
    atomic_store_explicit(&line->phase, copy->phase, memory_order_release);
    atomic_store_explicit(&line->since_ns, monotonic_ns() - copy->age_ns, memory_order_release);
    atomic_store_explicit(&line->step, copy->step, memory_order_release);
    for (int i = 0; i < METHOD_BYTES / 8; i++)
        atomic_store_explicit(&line->method[i], copy->method[i], memory_order_release);
    atomic_store_explicit(&line->sequence, sequence + 2, memory_order_release);
    for (int i = 0; i < N_COUNTERS; i++)
        atomic_store_explicit(&line->counters[i], copy->counters[i], memory_order_relaxed);
    atomic_store_explicit(&line->node, node, memory_order_relaxed);
    atomic_store_explicit(&line->pid, copy->pid, memory_order_relaxed);
}
