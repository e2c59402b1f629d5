/* stress: one engine and N ranks over one request ring and N reply rings, in threads or processes.
 * Every byte is checked; a lost wake-up hangs the run, and this parent says where. */
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "scene.h"

enum { KILL_POLL_NS = 1000000, WATCH_POLL_NS = 200000000 };

struct family {
    struct scene *scene;
    struct rings rings;
    pid_t pids[RING_MAX_READERS + 1]; /* 0 when it has ended */
    uint32_t n_alive;
};

static const char usage[] =
    "usage: stress --mode threads|processes --readers N --messages M --seed S --capacity BYTES\n"
    "              [--park] [--delays] [--poison-at MESSAGE | --kill-at MESSAGE]\n"
    "              [--limit SECONDS]   without progress, after which the run has failed\n";

static _Noreturn void say_usage(const char *problem) {
    fprintf(stderr, "stress: %s\n%s", problem, usage);
    exit(2);
}

static uint64_t parse_number(const char *text) {
    char *end;
    uint64_t number = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end)
        say_usage("not a number");
    return number;
}

static bool parse_mode(const char *text) {
    if (strcmp(text, "threads") != 0 && strcmp(text, "processes") != 0)
        say_usage("the mode is threads or processes");
    return text[0] == 'p';
}

static struct options parse_options(int argc, char **argv) {
    static const struct option names[] = {
        {"mode", required_argument, NULL, 'm'},
        {"readers", required_argument, NULL, 'r'},
        {"messages", required_argument, NULL, 'n'},
        {"seed", required_argument, NULL, 's'},
        {"capacity", required_argument, NULL, 'c'},
        {"park", no_argument, NULL, 'p'},
        {"delays", no_argument, NULL, 'd'},
        {"poison-at", required_argument, NULL, 'x'},
        {"kill-at", required_argument, NULL, 'k'},
        {"limit", required_argument, NULL, 'l'},
        {NULL, 0, NULL, 0},
    };
    struct options options = {
        .n_readers = 2, .messages = 100000, .seed = 1, .capacity = 16384, .limit_s = 60};
    int name;
    while ((name = getopt_long(argc, argv, "", names, NULL)) != -1) {
        switch (name) {
        case 'm':
            options.processes = parse_mode(optarg);
            break;
        case 'r':
            options.n_readers = (uint32_t)parse_number(optarg);
            break;
        case 'n':
            options.messages = parse_number(optarg);
            break;
        case 's':
            options.seed = parse_number(optarg);
            break;
        case 'c':
            options.capacity = parse_number(optarg);
            break;
        case 'p':
            options.park = true;
            break;
        case 'd':
            options.delays = true;
            break;
        case 'x':
            options.poison_at = parse_number(optarg);
            break;
        case 'k':
            options.kill_at = parse_number(optarg);
            break;
        case 'l':
            options.limit_s = (unsigned)parse_number(optarg);
            break;
        default:
            say_usage("what is that?");
        }
    }
    /* The engine is ahead of its ranks by no more than the records of a full ring. */
    uint64_t ahead = options.capacity / sizeof(struct record_header);
    if (options.poison_at && options.poison_at + ahead > options.messages)
        say_usage("poison comes too late to be noticed");
    if (options.n_readers < 1 || options.n_readers > RING_MAX_READERS || options.messages < 1)
        say_usage("1 to 64 readers and at least one message");
    return options;
}

static void kill_all(struct family *family) {
    for (uint32_t i = 0; i < scene_n_processes(family->scene); i++)
        if (family->pids[i])
            kill(family->pids[i], SIGKILL);
}

static _Noreturn void fail(struct family *family, const char *why) {
    const struct options *options = &family->scene->options;
    fprintf(
        stderr, "stress: %s: %s, %" PRIu32 " readers, capacity %" PRIu64 ", seed %" PRIu64 "%s%s\n",
        why, options->processes ? "processes" : "threads", options->n_readers, options->capacity,
        options->seed, options->park ? ", park" : "", options->delays ? ", delays" : "");
    scene_report(family->scene, &family->rings);
    kill_all(family);
    exit(1);
}

static void check_exit(struct family *family, uint32_t number, int status) {
    bool is_victim = family->scene->options.kill_at && family->scene->options.processes &&
                     number == 1 && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    if (is_victim)
        scene_bury(family->scene, &family->rings, 0);
    else if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        fail(family, "a side failed");
}

static void reap(struct family *family) {
    for (uint32_t i = 0; i < scene_n_processes(family->scene); i++) {
        int status;
        if (!family->pids[i] || waitpid(family->pids[i], &status, WNOHANG) != family->pids[i])
            continue;
        family->pids[i] = 0;
        family->n_alive--;
        check_exit(family, i, status);
    }
}

/* Kills the process of rank 0 when it has come to the message; true while that is to be done. */
static bool must_kill(const struct family *family) {
    const struct options *options = &family->scene->options;
    if (!options->kill_at || !options->processes || !family->pids[1])
        return false;
    if (atomic_load(&family->scene->ranks[0].messages) < options->kill_at)
        return true;
    kill(family->pids[1], SIGKILL);
    return false;
}

static uint64_t progress_of(const struct scene *scene) {
    uint64_t messages = atomic_load(&scene->engine.messages);
    for (uint32_t rank = 0; rank < scene->options.n_readers; rank++)
        messages += atomic_load(&scene->ranks[rank].messages);
    return messages;
}

/* A slow machine is no hang: only time without progress counts. */
static void watch(struct family *family, const sigset_t *child_ended) {
    uint64_t limit_ns = family->scene->options.limit_s * UINT64_C(1000000000);
    uint64_t progress = 0, since = monotonic_ns();
    for (reap(family); family->n_alive > 0; reap(family)) {
        uint64_t now = monotonic_ns(), seen = progress_of(family->scene);
        if (seen != progress)
            since = now;
        progress = seen;
        if (now - since > limit_ns)
            fail(family, "hangs: no message was sent or received within the time limit");
        long poll_ns = must_kill(family) ? KILL_POLL_NS : WATCH_POLL_NS;
        sigtimedwait(child_ended, NULL, &(struct timespec){.tv_nsec = poll_ns});
    }
}

/* Poison lets every reader drain: it misses at most the record that was written meanwhile. */
static void check_drained(struct family *family) {
    struct scene *scene = family->scene;
    for (uint32_t rank = 0; rank < scene->options.n_readers; rank++)
        if (scene->options.poison_at && scene->ranks[rank].messages + 1 < scene->engine.messages)
            fail(family, "a rank didn't drain the poisoned ring");
}

static void say_ok(const struct scene *scene, uint64_t ns) {
    const struct options *options = &scene->options;
    uint64_t parks = scene->engine.counters[COUNT_PARKS];
    for (uint32_t rank = 0; rank < options->n_readers; rank++)
        parks += scene->ranks[rank].counters[COUNT_PARKS];
    printf("OK %-9s readers=%-2" PRIu32 " capacity=%-6" PRIu64 " park=%d delays=%d%s"
           " messages=%" PRIu64 " aborted=%" PRIu64 " parks=%" PRIu64 " seconds=%.1f\n",
           options->processes ? "processes" : "threads", options->n_readers, options->capacity,
           options->park, options->delays,
           options->kill_at     ? " killed"
           : options->poison_at ? " poisoned"
                                : "",
           scene->engine.messages, scene->engine.aborted, parks, (double)ns / 1e9);
}

int main(int argc, char **argv) {
    static struct family family;
    struct options options = parse_options(argc, argv);
    sigset_t child_ended;
    sigemptyset(&child_ended);
    sigaddset(&child_ended, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child_ended, NULL); /* sigtimedwait() takes it */
    uint64_t start = monotonic_ns();
    family.scene = scene_new(&options);
    scene_map(family.scene, &family.rings); /* children don't get it: MADV_DONTFORK */
    family.n_alive = scene_n_processes(family.scene);
    for (uint32_t i = 0; i < scene_n_processes(family.scene); i++)
        family.pids[i] = scene_start_process(family.scene, i);
    watch(&family, &child_ended);
    check_drained(&family);
    say_ok(family.scene, monotonic_ns() - start);
    return 0;
}
