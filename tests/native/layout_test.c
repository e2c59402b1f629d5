/* What a segment must be before anybody maps it as a ring. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "fixture.h"

static size_t line_of(size_t offset) {
    return offset / LAYOUT_LINE;
}

static void what_different_processes_write_is_on_different_lines(void) {
    size_t lines[] = {
        line_of(offsetof(struct ring_header, about)),
        line_of(offsetof(struct ring_header, tail)),
        line_of(offsetof(struct ring_header, data_bell)),
        line_of(offsetof(struct ring_header, space_bell)),
        line_of(offsetof(struct ring_header, want)),
        line_of(offsetof(struct ring_header, state)),
        line_of(offsetof(struct ring_header, readers[0])),
        line_of(offsetof(struct ring_header, readers[1])),
    };
    for (size_t i = 1; i < sizeof lines / sizeof lines[0]; i++)
        CHECK(lines[i] > lines[i - 1]);
}

static void a_record_header_is_16_bytes_and_keeps_the_alignment(void) {
    CHECK_EQUAL(sizeof(struct record_header), 16);
    CHECK_EQUAL(sizeof(struct record_header) % RECORD_ALIGN, 0);
}

static void format_refuses_impossible_shapes(void) {
    uint64_t page = page_size();
    int fd = new_segment(16 * page);
    CHECK_EQUAL(ring_format(fd, 0, 1), EINVAL);
    CHECK_EQUAL(ring_format(fd, page / 2, 1), EINVAL);
    CHECK_EQUAL(ring_format(fd, 3 * page, 1), EINVAL);
    CHECK_EQUAL(ring_format(fd, UINT64_C(1) << 32, 1), EINVAL);
    CHECK_EQUAL(ring_format(fd, UINT64_MAX, 1), EINVAL);
    CHECK_EQUAL(ring_format(fd, page, 0), EINVAL);
    CHECK_EQUAL(ring_format(fd, page, RING_MAX_READERS + 1), EINVAL);
    CHECK_EQUAL(ring_format(fd, page, RING_MAX_READERS), 0);
}

static void map_refuses_zeros_garbage_and_an_empty_segment(void) {
    struct ring ring;
    uint64_t bytes = ring_segment_bytes(page_size(), 1);
    CHECK_EQUAL(ring_map(&ring, new_segment(0), NULL, NULL), EPROTO);
    CHECK_EQUAL(ring_map(&ring, new_segment(bytes), NULL, NULL), EPROTO);
    int fd = new_segment(bytes);
    unsigned char garbage[LAYOUT_LINE];
    memset(garbage, 0xa5, sizeof garbage);
    CHECK_EQUAL(pwrite(fd, garbage, sizeof garbage, 0), sizeof garbage);
    CHECK_EQUAL(ring_map(&ring, fd, NULL, NULL), EPROTO);
}

/* Maps a good segment of two readers after changing one number of its header. */
static int map_with(size_t offset, const void *value, size_t bytes) {
    struct ring ring;
    int fd = new_segment(ring_segment_bytes(page_size(), 2));
    CHECK_EQUAL(ring_format(fd, page_size(), 2), 0);
    CHECK_EQUAL(pwrite(fd, value, bytes, (off_t)offset), bytes);
    int error = ring_map(&ring, fd, NULL, NULL);
    close(fd);
    return error;
}

#define MAP_WITH(type, field, ...)                                                                 \
    map_with(offsetof(struct ring_header, about.field), &(type){__VA_ARGS__}, sizeof(type))

static void map_refuses_a_header_with_one_wrong_number(void) {
    uint64_t page = page_size();
    CHECK_EQUAL(MAP_WITH(uint32_t, n_readers, 2), 0); /* what was there: the method works */
    CHECK_EQUAL(MAP_WITH(uint64_t, magic, RING_MAGIC + 1), EPROTO);
    CHECK_EQUAL(MAP_WITH(uint64_t, magic, STATUS_MAGIC), EPROTO);
    CHECK_EQUAL(MAP_WITH(uint32_t, version, LAYOUT_VERSION + 1), EPROTO);
    CHECK_EQUAL(MAP_WITH(uint32_t, n_readers, 0), EPROTO);
    CHECK_EQUAL(MAP_WITH(uint32_t, n_readers, UINT32_MAX), EPROTO);
    CHECK_EQUAL(MAP_WITH(uint64_t, capacity, 0), EPROTO);
    CHECK_EQUAL(MAP_WITH(uint64_t, capacity, page + 8), EPROTO);
    CHECK_EQUAL(MAP_WITH(uint64_t, capacity, 2 * page), EPROTO);
    CHECK_EQUAL(MAP_WITH(uint64_t, capacity, UINT64_MAX), EPROTO);
    CHECK_EQUAL(MAP_WITH(uint64_t, data_offset, 0), EPROTO);
    CHECK_EQUAL(MAP_WITH(uint64_t, data_offset, UINT64_MAX - page + 1), EPROTO);
}

static void map_refuses_a_truncated_segment(void) {
    struct ring ring;
    uint64_t bytes = ring_segment_bytes(page_size(), 1);
    int fd = new_segment(bytes);
    CHECK_EQUAL(ring_format(fd, page_size(), 1), 0);
    CHECK_EQUAL(ftruncate(fd, (off_t)bytes - 1), 0);
    CHECK_EQUAL(ring_map(&ring, fd, NULL, NULL), EPROTO);
    CHECK_EQUAL(ftruncate(fd, 8), 0);
    CHECK_EQUAL(ring_map(&ring, fd, NULL, NULL), EPROTO);
}

static void map_passes_on_what_the_kernel_says(void) {
    struct ring ring;
    CHECK_EQUAL(ring_map(&ring, -1, NULL, NULL), EBADF);
    CHECK_EQUAL(ring_format(-1, page_size(), 1), EBADF);

    int fd = new_segment(ring_segment_bytes(page_size(), 1));
    CHECK_EQUAL(ring_format(fd, page_size(), 1), 0);
    char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int read_only = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(read_only >= 0);
    CHECK_EQUAL(ring_map(&ring, read_only, NULL, NULL), EACCES);
}

static void the_data_is_mapped_twice_back_to_back(void) {
    struct fixture f;
    open_ring(&f, 2 * page_size(), 1);
    for (uint64_t i = 0; i < f.ring.capacity; i += 64) {
        f.ring.data[i] = (unsigned char)(i / 64 + 1);
        CHECK_EQUAL(f.ring.data[f.ring.capacity + i], (unsigned char)(i / 64 + 1));
    }
}

static void a_ring_maps_with_its_own_bells_or_with_those_given(void) {
    struct fixture f;
    struct ring again;
    static struct bell data_bell, space_bell;
    open_ring(&f, page_size(), 1);
    CHECK(f.ring.data_bell == &f.ring.shared->data_bell);
    CHECK(f.ring.space_bell == &f.ring.shared->space_bell);
    CHECK_EQUAL(ring_map(&again, f.fd, &data_bell, &space_bell), 0);
    CHECK(again.data_bell == &data_bell && again.space_bell == &space_bell);
}

static bool is_mapped(const void *address) {
    FILE *maps = fopen("/proc/self/maps", "r");
    CHECK(maps != NULL);
    char line[512];
    bool found = false;
    unsigned long long from, to, at = (unsigned long long)(uintptr_t)address;
    while (fgets(line, sizeof line, maps))
        if (sscanf(line, "%llx-%llx", &from, &to) == 2)
            found = found || (from <= at && at < to);
    fclose(maps);
    return found;
}

static bool any_of_it_is_mapped(const struct ring *ring) {
    return is_mapped(ring->shared) || is_mapped(ring->data) ||
           is_mapped(ring->data + 2 * ring->capacity - 1);
}

static void a_forked_child_does_not_have_the_mapping(void) {
    struct fixture f;
    open_ring(&f, page_size(), 1);
    CHECK(is_mapped(f.ring.shared));
    CHECK(is_mapped(f.ring.data + 2 * f.ring.capacity - 1));
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0)
        _exit(any_of_it_is_mapped(&f.ring));
    int status;
    CHECK_EQUAL(waitpid(child, &status, 0), child);
    CHECK_EQUAL(status, 0);
}

static void unmap_leaves_nothing_and_may_be_called_twice(void) {
    struct fixture f;
    open_ring(&f, page_size(), 1);
    struct ring before = f.ring;
    CHECK(any_of_it_is_mapped(&before));
    ring_unmap(&f.ring);
    CHECK(!any_of_it_is_mapped(&before));
    ring_unmap(&f.ring);
}

const struct test layout_tests[] = {
    {TEST(what_different_processes_write_is_on_different_lines)},
    {TEST(a_record_header_is_16_bytes_and_keeps_the_alignment)},
    {TEST(format_refuses_impossible_shapes)},
    {TEST(map_refuses_zeros_garbage_and_an_empty_segment)},
    {TEST(map_refuses_a_header_with_one_wrong_number)},
    {TEST(map_refuses_a_truncated_segment)},
    {TEST(map_passes_on_what_the_kernel_says)},
    {TEST(the_data_is_mapped_twice_back_to_back)},
    {TEST(a_ring_maps_with_its_own_bells_or_with_those_given)},
    {TEST_OF_KERNEL(a_forked_child_does_not_have_the_mapping)},
    {TEST(unmap_leaves_nothing_and_may_be_called_twice)},
    {0},
};
