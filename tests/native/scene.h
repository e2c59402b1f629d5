/* What the sides of a stress run share: the engine, its ranks, and the parent that watches them. */
#ifndef NATIVE_SCENE_H
#define NATIVE_SCENE_H

#include <sys/types.h>

#include "ring/message.h"
#include "ring/ring_map.h"
#include "wait/wait.h"

struct options {
    bool processes; /* else threads */
    bool park;      /* never spin nor yield */
    bool delays;
    uint32_t n_readers;
    uint64_t messages;
    uint64_t seed;
    uint64_t capacity;
    uint64_t poison_at; /* the last rank poisons all rings at this message; 0: never */
    uint64_t kill_at;   /* rank 0 dies at about this message; 0: never */
    unsigned limit_s;
};

enum doing {
    STARTS,
    WORKS,
    WAITS_FOR_SPACE,
    WAITS_FOR_REPLIES,
    WAITS_FOR_REQUEST,
    WAITS_FOR_REPLY_SPACE,
    HAS_FINISHED,
};

/* One thread or process. Written by it alone; the parent looks at any time. */
struct side {
    OWN_LINE _Atomic uint32_t doing;
    _Atomic uint64_t messages; /* sent by the engine, received by a rank */
    _Atomic uint64_t aborted;
    _Atomic uint64_t counters[N_COUNTERS];
};

struct scene {
    struct bell engine_bell; /* all that the engine waits for */
    struct options options;
    int request_fd;
    int reply_fds[RING_MAX_READERS];
    struct side engine;
    struct side ranks[RING_MAX_READERS];
};

/* The rings as one process maps them. */
struct rings {
    struct ring request;
    struct ring replies[RING_MAX_READERS];
};

enum { REPLY_EVERY = 64, POISON_CODE = 7 };

/* In memory that forked children share. */
struct scene *scene_new(const struct options *options);
void scene_map(const struct scene *scene, struct rings *rings);

/* Says what each side does and how the rings stand. */
void scene_report(const struct scene *scene, struct rings *rings);

/* The streams' seeds and rings; rank r's replies are stream r + 1. */
uint64_t scene_seed(const struct scene *scene, uint32_t stream);
uint64_t scene_reply_capacity(void);

/* Returns when ready: never by time, so that a lost wake-up is a hang. */
void scene_wait(const struct scene *scene, struct side *side, enum doing doing,
                const struct waiter *waiter);

/* Long enough for everybody else to run out of work and fall asleep. */
void let_others_sleep(void);

void side_is(struct side *side, enum doing doing);
__attribute__((format(printf, 2, 3))) _Noreturn void side_fails(const char *who, const char *format,
                                                                ...);

void engine_run(struct scene *scene, struct rings *rings);
void rank_run(struct scene *scene, struct rings *rings, uint32_t rank);

/* One process has all threads, or each side has one: the engine is number 0, rank r is r + 1. */
uint32_t scene_n_processes(const struct scene *scene);
pid_t scene_start_process(struct scene *scene, uint32_t number);

/* What a supervisor does about the rank that was to die. */
void scene_bury(const struct scene *scene, struct rings *rings, uint32_t rank);

/* This thread's hooks delay it at random from now on. */
void delays_start(uint64_t seed);

#endif
