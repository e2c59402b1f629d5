/* The recorder: what a reader gets is one step's, also while the writer goes over it again. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>

#include "check.h"
#include "fixture.h"
#include "ring/clock.h"
#include "run/recorder.h"

enum { STEPS = 2, READS = 200000 };

/* A busy machine may run reader and writer rarely: they then read less. */
#define LIMIT_NS (3 * UINT64_C(1000000000))

struct run {
    struct recorder recorder;
    _Atomic bool is_over;
};

static void open_recorder(struct recorder *recorder, uint64_t n_steps) {
    int fd = new_segment(recorder_segment_bytes(2, n_steps));
    CHECK_EQUAL(recorder_format(fd, 2, n_steps, 1, 2), 0);
    CHECK_EQUAL(recorder_map(recorder, fd), 0);
}

/* All that is noted of step s is s. */
static void *record_for_ever(void *argument) {
    struct run *run = argument;
    struct track track;
    track_init(&track, &run->recorder, 1);
    for (uint64_t step = 1; !atomic_load(&run->is_over); step++) {
        track_received(&track, step, step & UINT32_MAX, step);
        track_enter(&track, PHASE_RUNNING, step, "method", 6, step);
        track_enter(&track, PHASE_REPLYING, step, NULL, 0, step);
        track_replied(&track, step, step & UINT32_MAX, step);
    }
    return NULL;
}

static void a_record_is_never_of_two_steps(void) {
    struct run run = {0};
    pthread_t writer;
    uint64_t last = 0, end_ns = monotonic_ns() + LIMIT_NS;
    open_recorder(&run.recorder, STEPS);
    CHECK_EQUAL(pthread_create(&writer, NULL, record_for_ever, &run), 0);
    for (int i = 0; i < READS || last < 1000; i++) {
        if (i % 100 == 0) {
            if (last > 0 && monotonic_ns() > end_ns)
                break;
            sched_yield();
        }
        struct step_copy copy;
        recorder_read(&run.recorder, 1, 1, &copy);
        if (copy.sequence & 1)
            continue;
        uint64_t step = copy.words[RANK_STEP];
        CHECK(step >= last);
        for (int word = RANK_RECEIVED_NS; word <= RANK_REPLIED_NS; word++)
            CHECK(copy.words[word] == step || copy.words[word] == 0);
        uint64_t bytes = copy.words[RANK_BYTES];
        CHECK((bytes & UINT32_MAX) == (step & UINT32_MAX));
        CHECK(bytes >> 32 == 0 || bytes >> 32 == (step & UINT32_MAX));
        last = step;
    }
    atomic_store(&run.is_over, true);
    pthread_join(writer, NULL);
}

static void a_late_reply_changes_no_later_step(void) {
    struct recorder recorder;
    struct track track;
    struct step_copy copy;
    open_recorder(&recorder, STEPS);
    track_init(&track, &recorder, 0);
    track_sent(&track, 1, 10, 100);
    track_sent(&track, 1 + STEPS, 20, 200);
    track_taken(&track, 1, 5, 300);
    recorder_read(&recorder, 0, 1, &copy);
    CHECK_EQUAL(copy.words[ENGINE_STEP], 1 + STEPS);
    CHECK_EQUAL(copy.words[ENGINE_SENT_NS], 200);
    CHECK_EQUAL(copy.words[ENGINE_LAST_NS], 0);
    CHECK_EQUAL(copy.words[ENGINE_REPLIES], 0);
}

static void a_name_that_is_one_too_many_is_not_known_and_the_others_stay(void) {
    struct recorder recorder;
    struct track track;
    struct step_copy copy;
    char name[] = "method 00";
    open_recorder(&recorder, 128);
    track_init(&track, &recorder, 1);
    for (uint64_t step = 1; step <= RECORDER_METHODS + 1; step++) {
        name[7] = (char)('0' + step / 10);
        name[8] = (char)('0' + step % 10);
        track_received_whole(&track, step, 1);
        track_enter(&track, PHASE_RUNNING, step, name, 9, step);
    }
    recorder_read(&recorder, 1, RECORDER_METHODS, &copy);
    CHECK_EQUAL(copy.method, RECORDER_METHODS);
    CHECK_EQUAL(strcmp(track.names->names[RECORDER_METHODS - 1], "method 64"), 0);
    recorder_read(&recorder, 1, RECORDER_METHODS + 1, &copy);
    CHECK_EQUAL(copy.method, 0);
    track_enter(&track, PHASE_RUNNING, 100, "method 07", 9, 1);
    recorder_read(&recorder, 1, 100, &copy);
    CHECK_EQUAL(copy.method, 7);
}

static void a_collective_counts_from_the_outermost_begin_to_its_end(void) {
    struct recorder recorder;
    struct track track;
    struct step_copy copy;
    open_recorder(&recorder, STEPS);
    track_init(&track, &recorder, 1);
    track_received_whole(&track, 1, 1);
    track_enter(&track, PHASE_RUNNING, 1, "m", 1, 10);
    track_enter_collective(&track, 20);
    track_enter_collective(&track, 25);
    track_exit_collective(&track, 30);
    track_exit_collective(&track, 50);
    track_exit_collective(&track, 60);
    track_enter_collective(&track, 100);
    track_exit_collective(&track, 101);
    recorder_read(&recorder, 1, 1, &copy);
    CHECK_EQUAL(copy.words[RANK_COLLECTIVE_NS], 31);
}

static void what_is_no_recorder_is_neither_made_nor_mapped(void) {
    struct recorder recorder;
    int fd = new_segment(1 << 20);
    CHECK_EQUAL(recorder_format(fd, 1, 16, 1, 2), EINVAL);
    CHECK_EQUAL(recorder_format(fd, RING_MAX_READERS + 2, 16, 1, 2), EINVAL);
    CHECK_EQUAL(recorder_format(fd, 2, 24, 1, 2), EINVAL);
    CHECK_EQUAL(recorder_format(fd, 2, RECORDER_MAX_STEPS, 1, 2), EPROTO);
    CHECK_EQUAL(recorder_map(&recorder, fd), EPROTO);
}

const struct test recorder_tests[] = {
    {TEST(a_record_is_never_of_two_steps)},
    {TEST(a_late_reply_changes_no_later_step)},
    {TEST(a_name_that_is_one_too_many_is_not_known_and_the_others_stay)},
    {TEST(a_collective_counts_from_the_outermost_begin_to_its_end)},
    {TEST(what_is_no_recorder_is_neither_made_nor_mapped)},
    {0},
};
