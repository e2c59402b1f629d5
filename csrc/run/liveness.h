/* Liveness: notices the death of another process within a millisecond.
 *
 * A process holds a robust futex in shared memory. When it ends, for whatever reason, the kernel
 * marks the word and wakes its watcher. Threads of C hold and watch, so neither side needs its
 * interpreter. README.md compares with other ways. */
#ifndef MPSPMD_RUN_LIVENESS_H
#define MPSPMD_RUN_LIVENESS_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

#include "ring/layout.h"

enum { LIVENESS_MAX_HELD = RING_MAX_READERS };

/* A thread that holds liveness words until liveness_release(), or until the process ends. */
struct liveness_holder {
    pthread_t thread;
    struct liveness *words[LIVENESS_MAX_HELD];
    size_t n_words;
    _Atomic uint32_t stage;
    int error;
};

/* Returns when all are held: 0, or an errno value: EBUSY when somebody holds one already, or has
 * died holding it. The holder stays where it is until released. */
int liveness_hold(struct liveness_holder *holder, struct liveness *const *words, size_t n_words);

/* Releases them as if they had never been held: nobody notices a death. */
void liveness_release(struct liveness_holder *holder);

/* A thread that waits for the death of a word's holder and then calls `died` once. The holder may
 * begin later. */
struct liveness_watcher {
    pthread_t thread;
    struct liveness *liveness;
    void (*died)(void *context);
    void *context;
    _Atomic bool stop, ended;
};

/* 0, or an errno value. The watcher stays where it is until stopped. */
int liveness_watch(struct liveness_watcher *watcher, struct liveness *liveness,
                   void (*died)(void *), void *context);

/* Returns when the thread has ended: `died` isn't called from then on, or has returned. */
void liveness_unwatch(struct liveness_watcher *watcher);

/* Whether its holder has died. */
bool liveness_is_over(const struct liveness *liveness);

#endif
