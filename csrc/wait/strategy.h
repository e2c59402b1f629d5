/* The way of waiting that the user has chosen. It uses the polls and sleeps of wait.h.
 *
 * `auto` sleeps until shortly before the message is due, and then polls. If the message doesn't
 * come, it sleeps until the bell rings. It has nearly the latency of spinning, and the cost of
 * sleeping. It polls at once for a message that is due at once. One thread at a time. */
#ifndef MPSPMD_WAIT_STRATEGY_H
#define MPSPMD_WAIT_STRATEGY_H

#include "wait/predict.h"
#include "wait/wait.h"

enum wait_strategy {
    WAIT_AUTO,
    WAIT_SPIN,
    WAIT_YIELD,
    WAIT_PARK,
    WAIT_AWAKE /* `auto` for an engine: it stays awake while its ranks need all cores */
};

enum {
    PREDICTORS = 64,   /* keys that share one spoil each other's predictions, nothing else */
    SLEEP_LENGTHS = 40 /* powers of two of a nanosecond: up to nine minutes */
};

/* What one thread has learnt. Zero it before the first use, then strategy_init(). */
struct strategy {
    enum wait_strategy kind;
    struct spinners *spinners; /* of the whole run, or NULL: no limit */
    uint32_t n_ranks;          /* of the run that `spinners` are of */
    uint32_t spin_ns;          /* how long a wait polls without giving up the core; 0: not at all */
    uint32_t late_ns[SLEEP_LENGTHS]; /* how late a sleep of that length ends */
    struct predictor predictors[PREDICTORS];
};

/* One wait, from its first call to its last. Zero it, set the key. */
struct waiting {
    uint64_t key; /* what came before: waits with the same key are predicted to take as long */
    uint64_t start_ns;
    uint64_t polled_ns; /* spent in windows so far */
    bool began, polled_first, predicts, predicted;
    bool at_once;           /* the first short poll has found it */
    struct window expected; /* if `predicted` */
};

/* Every longer wait reads the number of cores from `spinners`, because it may change. */
void strategy_init(struct strategy *strategy, enum wait_strategy kind, struct spinners *spinners,
                   uint32_t n_ranks);

/* The start of a wait: a first short poll, without giving up the core. True when ready. */
bool strategy_begin(struct strategy *strategy, struct waiting *waiting,
                    const struct waiter *waiter);

/* The rest of the wait. Returns WAIT_SIGNAL after a signal, and also from time to time, because it
 * may miss one: handle signals, and call it again. */
enum wait_result strategy_wait(struct strategy *strategy, struct waiting *waiting,
                               const struct waiter *waiter, uint64_t deadline_ns);

/* The message was sent at `sent_ns`. If that is before the wait began, it is an earlier message's
 * time, and this one was sent just now. */
void strategy_learn(struct strategy *strategy, const struct waiting *waiting,
                    const struct waiter *waiter, uint64_t sent_ns);

#endif
