/* The way of waiting that the user has chosen, over the polls and sleeps of wait.h.
 *
 * `auto` sleeps until shortly before the message is due, polls for it while it is expected, and
 * sleeps until the bell when it doesn't come: the latency of a spinner at the price of a sleeper.
 * What is due at once is polled for at once. One thread at a time. */
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
    PREDICTORS = 64,   /* keys that fall together disturb each other's predictions, nothing else */
    SLEEP_LENGTHS = 40 /* powers of two of a nanosecond: up to nine minutes */
};

/* What one thread has learnt. Zero it before the first use, then strategy_init(). */
struct strategy {
    enum wait_strategy kind;
    struct spinners *spinners; /* of the whole run, or NULL: no limit */
    uint32_t n_ranks;          /* of the run that `spinners` are of */
    uint32_t spin_ns;          /* how long a wait polls without giving up the core; 0: not at all */
    uint32_t late_ns[SLEEP_LENGTHS]; /* how much longer than asked a sleep of that length takes */
    struct predictor predictors[PREDICTORS];
};

/* One wait, from its first call to its last. Zero it, set the key. */
struct waiting {
    uint64_t key; /* what came before: waits with the same key are expected to take as long */
    uint64_t start_ns;
    uint64_t polled_ns; /* spent in windows so far */
    bool began, polled_first, predicts, predicted;
    bool at_once;           /* the first short poll has found it */
    struct window expected; /* if `predicted` */
};

/* How many cores there are is read from `spinners` at every longer wait: it may change. */
void strategy_init(struct strategy *strategy, enum wait_strategy kind, struct spinners *spinners,
                   uint32_t n_ranks);

/* The start of a wait: a first short poll, without giving up the core. True when ready. */
bool strategy_begin(struct strategy *strategy, struct waiting *waiting,
                    const struct waiter *waiter);

/* The rest of it. Returns at the deadline, and with WAIT_SIGNAL when a signal has come, or now and
 * then because one may have; call it again to go on. */
enum wait_result strategy_wait(struct strategy *strategy, struct waiting *waiting,
                               const struct waiter *waiter, uint64_t deadline_ns);

/* What was waited for was sent at `sent_ns`; a time before the wait is that of an earlier message,
 * and it has been sent just now. */
void strategy_learn(struct strategy *strategy, const struct waiting *waiting,
                    const struct waiter *waiter, uint64_t sent_ns);

#endif
