#include "ring/ring_map.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ring/segment.h"

static uint64_t round_up(uint64_t bytes, uint64_t to) {
    return (bytes + to - 1) & ~(to - 1);
}

static uint64_t page_bytes(void) {
    return (uint64_t)sysconf(_SC_PAGESIZE);
}

static uint64_t control_bytes(uint32_t n_readers) {
    struct ring_header *header = NULL;
    return round_up(sizeof *header + n_readers * sizeof header->readers[0], page_bytes());
}

bool ring_shape_is_valid(uint64_t capacity, uint32_t n_readers) {
    return n_readers >= 1 && n_readers <= RING_MAX_READERS && capacity >= page_bytes() &&
           capacity <= UINT64_C(1) << 31 && (capacity & (capacity - 1)) == 0;
}

size_t ring_segment_bytes(uint64_t capacity, uint32_t n_readers) {
    return control_bytes(n_readers) + capacity;
}

int ring_format(int fd, uint64_t capacity, uint32_t n_readers) {
    if (!ring_shape_is_valid(capacity, n_readers))
        return EINVAL;
    size_t bytes = control_bytes(n_readers);
    void *memory;
    int error = segment_map_new(fd, bytes, ring_segment_bytes(capacity, n_readers), &memory);
    if (error)
        return error;
    struct ring_header *header = memory;
    header->about.version = LAYOUT_VERSION;
    header->about.n_readers = n_readers;
    header->about.capacity = capacity;
    header->about.data_offset = bytes;
    header->about.magic = RING_MAGIC;
    munmap(header, bytes);
    return 0;
}

/* Reads and checks the header of a segment. */
static int read_about(int fd, uint64_t *capacity, uint32_t *n_readers) {
    struct ring_header header;
    int error = segment_read_about(fd, &header.about, sizeof header.about, RING_MAGIC);
    if (error)
        return error;
    if (!ring_shape_is_valid(header.about.capacity, header.about.n_readers) ||
        header.about.data_offset != control_bytes(header.about.n_readers))
        return EPROTO;
    *capacity = header.about.capacity;
    *n_readers = header.about.n_readers;
    return segment_check_size(fd, header.about.data_offset + header.about.capacity);
}

int ring_map(struct ring *ring, int fd, struct bell *data_bell, struct bell *space_bell) {
    uint64_t capacity;
    uint32_t n_readers;
    int error = read_about(fd, &capacity, &n_readers);
    if (error)
        return error;
    if (data_bell && n_readers > 1)
        return EINVAL;
    uint64_t control = control_bytes(n_readers), all = control + 2 * capacity;
    /* One reservation, then both mappings into it, so that nothing can come between them. */
    unsigned char *base = mmap(NULL, all, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED)
        return errno;
    int access = PROT_READ | PROT_WRITE, shared = MAP_SHARED | MAP_FIXED;
    /* The segment's pages exist. Populating the mapping now saves the first lap a fault of 5 µs for
     * each. Of the second mapping only the part behind the end is ever used. */
    if (mmap(base, control + capacity, access, shared | MAP_POPULATE, fd, 0) == MAP_FAILED ||
        mmap(base + control + capacity, capacity, access, shared, fd, (off_t)control) ==
            MAP_FAILED ||
        /* A forked child must not become a second writer, or a second reader of a slot. */
        madvise(base, all, MADV_DONTFORK) != 0) {
        error = errno;
        munmap(base, all);
        return error;
    }
    ring->shared = (struct ring_header *)base;
    ring->data = base + control;
    ring->capacity = capacity;
    ring->n_readers = n_readers;
    ring->data_bell = data_bell ? data_bell : &ring->shared->data_bell;
    ring->space_bell = space_bell ? space_bell : &ring->shared->space_bell;
    return 0;
}

void ring_unmap(struct ring *ring) {
    if (ring->shared)
        munmap(ring->shared,
               (size_t)(ring->data - (unsigned char *)ring->shared) + 2 * (size_t)ring->capacity);
    ring->shared = NULL;
}

int ring_look(int fd, uint64_t *capacity, uint32_t *n_readers, uint64_t *tail, uint64_t *heads,
              uint64_t *published_ns) {
    int error = read_about(fd, capacity, n_readers);
    /* The tail first: a head that is read later may only be nearer to it, or beyond. */
    if (!error && pread(fd, tail, sizeof *tail, offsetof(struct ring_header, tail)) != sizeof *tail)
        error = EPROTO;
    for (uint32_t slot = 0; !error && slot < *n_readers; slot++) {
        off_t offset = (off_t)offsetof(struct ring_header, readers[slot].head);
        if (pread(fd, &heads[slot], sizeof *heads, offset) != sizeof *heads)
            error = EPROTO;
    }
    if (!error && pread(fd, published_ns, sizeof *published_ns,
                        offsetof(struct ring_header, published_ns)) != sizeof *published_ns)
        error = EPROTO;
    return error;
}
