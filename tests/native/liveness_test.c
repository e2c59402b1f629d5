/* Lives: held until the process ends, watched from another. A death that isn't noticed hangs. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "ring/bell.h"
#include "run/liveness.h"

enum { MANY = 8 };

struct shared {
    struct liveness words[MANY];
    struct bell bell;
};

static struct shared *new_shared(void) {
    void *memory = mmap(NULL, sizeof(struct shared), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    return memory;
}

static void hold_all(struct shared *shared) {
    static struct liveness_holder holder;
    struct liveness *words[MANY];
    for (int i = 0; i < MANY; i++)
        words[i] = &shared->words[i];
    CHECK_EQUAL(liveness_hold(&holder, words, MANY), 0);
}

/* A process that holds all words from begin() on, and does nothing more. */
struct holder_process {
    pid_t pid;
    int orders[2], held[2];
};

static struct holder_process new_process(struct shared *shared) {
    struct holder_process process;
    char byte;
    CHECK_EQUAL(pipe(process.orders) | pipe(process.held), 0);
    process.pid = fork();
    if (process.pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* should the claim fail */
        CHECK_EQUAL(read(process.orders[0], &byte, 1), 1);
        hold_all(shared);
        CHECK_EQUAL(write(process.held[1], "!", 1), 1);
        for (;;)
            pause();
    }
    return process;
}

static void begin(struct holder_process *process) {
    char byte;
    CHECK_EQUAL(write(process->orders[1], "!", 1), 1);
    CHECK_EQUAL(read(process->held[0], &byte, 1), 1);
}

static pid_t start_holder(struct shared *shared) {
    struct holder_process process = new_process(shared);
    begin(&process);
    return process.pid;
}

struct notice {
    struct bell *bell;
    _Atomic int count;
};

static void take_notice(void *context) {
    struct notice *notice = context;
    atomic_fetch_add(&notice->count, 1);
    bell_ring(notice->bell);
}

static void wait_for(struct notice *notice) {
    while (atomic_load(&notice->count) == 0) {
        uint32_t seen = bell_prepare(notice->bell, 1);
        if (atomic_load(&notice->count) == 0)
            bell_sleep(notice->bell, seen, UINT64_MAX / 2);
        bell_leave(notice->bell, 1);
    }
}

static void check_death_is_noticed(void (*end)(pid_t holder)) {
    struct shared *shared = new_shared();
    struct notice notices[MANY];
    struct liveness_watcher watchers[MANY];
    pid_t holder = start_holder(shared);
    for (int i = 0; i < MANY; i++) {
        notices[i] = (struct notice){.bell = &shared->bell};
        CHECK_EQUAL(liveness_watch(&watchers[i], &shared->words[i], take_notice, &notices[i]), 0);
    }
    usleep(10000);
    CHECK(!liveness_is_over(&shared->words[0]));
    end(holder);
    for (int i = 0; i < MANY; i++) {
        wait_for(&notices[i]);
        CHECK(liveness_is_over(&shared->words[i]));
        liveness_unwatch(&watchers[i]);
        CHECK_EQUAL(atomic_load(&notices[i].count), 1);
    }
    waitpid(holder, NULL, 0);
}

static void kill_it(pid_t holder) {
    kill(holder, SIGKILL);
}

static void terminate_it(pid_t holder) {
    kill(holder, SIGTERM);
}

static void a_killed_holder_is_noticed_by_each_watcher(void) {
    check_death_is_noticed(kill_it);
}

static void a_terminated_holder_is_noticed_by_each_watcher(void) {
    check_death_is_noticed(terminate_it);
}

static void a_holder_that_dies_before_it_is_watched_is_noticed(void) {
    struct shared *shared = new_shared();
    struct notice notice = {.bell = &shared->bell};
    struct liveness_watcher watcher;
    pid_t holder = start_holder(shared);
    kill(holder, SIGKILL);
    waitpid(holder, NULL, 0);
    CHECK_EQUAL(liveness_watch(&watcher, &shared->words[MANY - 1], take_notice, &notice), 0);
    wait_for(&notice);
    liveness_unwatch(&watcher);
}

static void a_word_that_is_held_after_its_watch_began_is_watched(void) {
    struct shared *shared = new_shared();
    struct notice notice = {.bell = &shared->bell};
    struct liveness_watcher watcher;
    struct holder_process holder = new_process(shared);
    CHECK_EQUAL(liveness_watch(&watcher, &shared->words[3], take_notice, &notice), 0);
    usleep(10000);
    begin(&holder);
    usleep(10000);
    CHECK_EQUAL(atomic_load(&notice.count), 0);
    kill(holder.pid, SIGKILL);
    wait_for(&notice);
    liveness_unwatch(&watcher);
}

static void a_holder_that_replaces_its_program_is_noticed(void) {
    struct shared *shared = new_shared();
    struct notice notice = {.bell = &shared->bell};
    struct liveness_watcher watcher;
    pid_t holder = fork();
    if (holder == 0) {
        hold_all(shared);
        execlp("sleep", "sleep", "600", (char *)NULL);
        _exit(1);
    }
    CHECK_EQUAL(liveness_watch(&watcher, &shared->words[0], take_notice, &notice), 0);
    wait_for(&notice);
    liveness_unwatch(&watcher);
    kill(holder, SIGKILL);
}

static void a_released_word_is_no_death_and_may_be_held_again(void) {
    struct shared *shared = new_shared();
    struct notice notice = {.bell = &shared->bell};
    struct liveness_watcher watcher;
    struct liveness_holder holder;
    struct liveness *word = &shared->words[0];
    CHECK_EQUAL(liveness_watch(&watcher, word, take_notice, &notice), 0);
    for (int i = 0; i < 100; i++) {
        CHECK_EQUAL(liveness_hold(&holder, &word, 1), 0);
        liveness_release(&holder);
    }
    CHECK(!liveness_is_over(word));
    liveness_unwatch(&watcher);
    CHECK_EQUAL(atomic_load(&notice.count), 0);
}

static void a_word_has_one_holder_and_the_dead_stay_dead(void) {
    struct shared *shared = new_shared();
    struct liveness_holder holder;
    struct liveness *two[2] = {&shared->words[1], &shared->words[0]};
    pid_t other = start_holder(shared);
    CHECK_EQUAL(liveness_hold(&holder, two, 2), EBUSY);
    kill(other, SIGKILL);
    waitpid(other, NULL, 0);
    CHECK(liveness_is_over(two[0]));
    CHECK_EQUAL(liveness_hold(&holder, two, 2), EBUSY);
    CHECK(liveness_is_over(two[0]));
}

static void a_holder_that_gets_not_all_keeps_none(void) {
    struct shared *shared = new_shared();
    struct liveness_holder first, second;
    struct liveness *two[2] = {&shared->words[0], &shared->words[1]};
    CHECK_EQUAL(liveness_hold(&first, &two[1], 1), 0);
    CHECK_EQUAL(liveness_hold(&second, two, 2), EBUSY);
    CHECK_EQUAL(atomic_load(&two[0]->word) & FUTEX_TID_MASK, 0);
    liveness_release(&first);
    CHECK_EQUAL(liveness_hold(&second, two, 2), 0);
    liveness_release(&second);
}

static void a_watch_can_be_given_up_at_any_moment(void) {
    struct shared *shared = new_shared();
    struct notice notice = {.bell = &shared->bell};
    struct liveness_watcher watcher;
    pid_t holder = start_holder(shared);
    for (int i = 0; i < 200; i++) {
        CHECK_EQUAL(liveness_watch(&watcher, &shared->words[i % MANY], take_notice, &notice), 0);
        if (i % 3)
            usleep(i);
        liveness_unwatch(&watcher);
    }
    CHECK_EQUAL(atomic_load(&notice.count), 0);
    kill(holder, SIGKILL);
}

const struct test liveness_tests[] = {
    {TEST_OF_KERNEL(a_killed_holder_is_noticed_by_each_watcher)},
    {TEST_OF_KERNEL(a_terminated_holder_is_noticed_by_each_watcher)},
    {TEST_OF_KERNEL(a_holder_that_dies_before_it_is_watched_is_noticed)},
    {TEST_OF_KERNEL(a_word_that_is_held_after_its_watch_began_is_watched)},
    {TEST_OF_KERNEL(a_holder_that_replaces_its_program_is_noticed)},
    {TEST_OF_KERNEL(a_released_word_is_no_death_and_may_be_held_again)},
    {TEST_OF_KERNEL(a_word_has_one_holder_and_the_dead_stay_dead)},
    {TEST_OF_KERNEL(a_holder_that_gets_not_all_keeps_none)},
    {TEST_OF_KERNEL(a_watch_can_be_given_up_at_any_moment)},
    {0},
};
