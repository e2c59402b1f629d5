/* Life: how the death of another process is noticed within a millisecond.
 *
 * A process holds a life, a robust futex in shared memory; when it ends, however it ends, the
 * kernel marks the word and wakes the one who watches. Threads of C do both, so that neither side
 * needs its interpreter. README.md compares with other ways. */
#ifndef MPSPMD_LIFE_H
#define MPSPMD_LIFE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

#include "layout.h"

enum { LIFE_MAX_HELD = RING_MAX_READERS };

/* A thread that holds lives until life_release(), or until the process ends. */
struct life_holder {
    pthread_t thread;
    struct life *lives[LIFE_MAX_HELD];
    size_t n_lives;
    _Atomic uint32_t stage;
    int error;
};

/* Returns when all are held: 0, or an errno value: EBUSY when somebody holds one already, or has
 * died holding it. The holder stays where it is until released. */
int life_hold(struct life_holder *holder, struct life *const *lives, size_t n_lives);

/* Gives them back, as if they had never been held: no death is noticed. */
void life_release(struct life_holder *holder);

/* A thread that waits for the end of one life, which may begin later, and then calls `died` once.
 */
struct life_watcher {
    pthread_t thread;
    struct life *life;
    void (*died)(void *context);
    void *context;
    _Atomic bool stop, ended;
};

/* 0, or an errno value. The watcher stays where it is until stopped. */
int life_watch(struct life_watcher *watcher, struct life *life, void (*died)(void *),
               void *context);

/* Returns when the thread has ended: `died` isn't called from then on, or has returned. */
void life_unwatch(struct life_watcher *watcher);

/* Whether who held it has died. */
bool life_is_over(const struct life *life);

#endif
