/* The status page: what was checked when it was mapped holds, whatever comes into it later. */
#include <errno.h>
#include <sys/mman.h>

#include "check.h"
#include "fixture.h"
#include "run/status.h"

static int new_page(uint32_t n_ranks) {
    int fd = new_segment(status_segment_bytes(n_ranks));
    CHECK_EQUAL(status_format(fd, n_ranks, 1, 2, 4), 0);
    return fd;
}

static void the_number_of_ranks_is_that_of_the_mapping(void) {
    struct status status;
    int fd = new_page(2);
    CHECK_EQUAL(status_map(&status, fd), 0);
    status.shared->about.n_ranks = 5000;
    CHECK_EQUAL(status.n_ranks, 2);
    CHECK(status.writable);
}

/* With the page's own number it would take what lies behind it with it. */
static void unmapping_takes_the_page_and_nothing_behind_it(void) {
    struct status status;
    size_t bytes = status_segment_bytes(1), page = page_size();
    size_t whole = (bytes + page - 1) / page * page;
    int fd = new_page(1);
    CHECK_EQUAL(status_map(&status, fd), 0);
    unsigned char *after = (unsigned char *)status.shared + whole, there;
    /* If something is there already, that will do as well. */
    mmap(after, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1,
         0);
    CHECK_EQUAL(mincore(after, page, &there), 0);
    status.shared->about.n_ranks = 64;
    status_unmap(&status);
    CHECK_EQUAL(mincore(after, page, &there), 0);
    CHECK(status.shared == NULL);
}

static void a_page_for_too_many_ranks_is_neither_made_nor_mapped(void) {
    struct status status;
    int fd = new_segment(1 << 20);
    CHECK_EQUAL(status_format(fd, 0, 1, 2, 4), EINVAL);
    CHECK_EQUAL(status_format(fd, RING_MAX_READERS + 1, 1, 2, 4), EINVAL);
    CHECK_EQUAL(status_map(&status, fd), EPROTO);
}

const struct test status_tests[] = {
    {TEST(the_number_of_ranks_is_that_of_the_mapping)},
    {TEST(unmapping_takes_the_page_and_nothing_behind_it)},
    {TEST(a_page_for_too_many_ranks_is_neither_made_nor_mapped)},
    {0},
};
