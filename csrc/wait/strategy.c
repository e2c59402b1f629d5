#include "wait/strategy.h"

#include <sys/prctl.h>

enum {
    SPIN_NS = 5000,         /* a round trip between two processes that are awake takes 1 to 4 µs */
    SHORT_NS = 50 * 1000,   /* polling for so long is cheaper than a sleep and a wake-up */
    WINDOW_NS = 400 * 1000, /* the longest that one wait polls at predicted times */
    GUARD_NS = 10 * 1000,   /* added to either end of a predicted window */
    SLEEP_NS = 200 * 1000,  /* shorter sleeps don't pay */
    LATE_NS = 50 * 1000,    /* how late a sleep is assumed to end before one was measured */
    STEP_NS = 1000 * 1000,  /* a longer wait is for a step, in which ranks wait for each other */
    AWAKE_NS = 250 * 1000 * 1000, /* in still longer steps the ranks mostly compute */
    /* After so long the caller checks for signals. A signal doesn't end a poll, nor a sleep that
     * begins just after it. */
    POLL_NS = 100 * 1000 * 1000,
    DOZE_NS = 500 * 1000 * 1000,
    MISSES = 4, /* after so many wrong predictions in a row none is used until one is right */
};

static uint32_t allowed_to_poll(const struct spinners *spinners) {
    return atomic_load_explicit(&spinners->allowed, memory_order_relaxed);
}

/* With no more usable cores than ranks, processes share cores. */
static bool is_crowded(const struct strategy *strategy) {
    return strategy->spinners && allowed_to_poll(strategy->spinners) < strategy->n_ranks;
}

/* On shared cores, the process that this one waits for mostly needs this core: on two cores, round
 * trips to four ranks take a tenth less if the core is given up at once. */
static uint32_t spin_ns_of(const struct strategy *strategy) {
    return is_crowded(strategy) || strategy->kind == WAIT_PARK ? 0 : SPIN_NS;
}

void strategy_init(struct strategy *strategy, enum wait_strategy kind, struct spinners *spinners,
                   uint32_t n_ranks) {
    strategy->kind = kind;
    strategy->spinners = spinners;
    strategy->n_ranks = n_ranks;
    strategy->spin_ns = spin_ns_of(strategy);
    for (int i = 0; i < SLEEP_LENGTHS; i++)
        strategy->late_ns[i] = LATE_NS;
}

static struct predictor *predictor_of(struct strategy *strategy, const struct waiting *waiting) {
    return &strategy->predictors[(waiting->key * UINT64_C(0x9e3779b97f4a7c15)) >> 58];
}

bool strategy_begin(struct strategy *strategy, struct waiting *waiting,
                    const struct waiter *waiter) {
    waiting->began = true;
    waiting->start_ns = monotonic_ns();
    waiting->at_once =
        strategy->spin_ns > 0 && wait_spin(waiter, waiting->start_ns + strategy->spin_ns);
    return waiting->at_once;
}

/* Whether this thread may poll for a while: one core must stay free for threads that work. A
 * process that is killed while it polls stays counted, but then its run is over. */
static bool may_poll(struct spinners *spinners) {
    if (!spinners)
        return true;
    uint32_t now = atomic_load_explicit(&spinners->now, memory_order_relaxed);
    while (now < allowed_to_poll(spinners))
        if (atomic_compare_exchange_weak_explicit(&spinners->now, &now, now + 1,
                                                  memory_order_relaxed, memory_order_relaxed))
            return true;
    return false;
}

static void has_polled(struct spinners *spinners) {
    if (spinners)
        atomic_fetch_sub_explicit(&spinners->now, 1, memory_order_relaxed);
}

static uint32_t *lateness_of(struct strategy *strategy, uint64_t sleep_ns) {
    int length = 63 - __builtin_clzll(sleep_ns | 1);
    return &strategy->late_ns[length < SLEEP_LENGTHS ? length : SLEEP_LENGTHS - 1];
}

/* Sleeps until `wake_ns`, and learns how late that was. */
static enum wait_result sleep_until(struct strategy *strategy, const struct waiter *waiter,
                                    uint64_t wake_ns) {
    uint32_t *late_ns = lateness_of(strategy, wake_ns - monotonic_ns());
    /* The kernel may gather timers of up to 50 µs otherwise. */
    int slack = prctl(PR_GET_TIMERSLACK);
    prctl(PR_SET_TIMERSLACK, 1UL);
    enum wait_result result = wait_until(waiter, 0, wake_ns);
    prctl(PR_SET_TIMERSLACK, (unsigned long)slack);
    uint64_t now = monotonic_ns();
    if (now > wake_ns && result != WAIT_SIGNAL) {
        int64_t error = (int64_t)(now - wake_ns < 1000000 ? now - wake_ns : 1000000) - *late_ns;
        *late_ns = (uint32_t)((int64_t)*late_ns + (error > 0 ? error / 4 : error / 32));
    }
    if (result == WAIT_READY)
        wait_count(waiter, now < wake_ns ? COUNT_EARLY : COUNT_LATE);
    return result;
}

/* The next window to poll in. False if there is none, or none worth it. */
static bool next_window(struct strategy *strategy, struct waiting *waiting, uint64_t now_ns,
                        struct window *window) {
    uint64_t elapsed_ns = now_ns - waiting->start_ns;
    if (waiting->polled_ns + GUARD_NS > WINDOW_NS)
        return false;
    struct predictor *predictor = predictor_of(strategy, waiting);
    bool found = predict_window(predictor, elapsed_ns, WINDOW_NS - waiting->polled_ns, window);
    if (!waiting->predicts) {
        waiting->predicts = true;
        waiting->predicted = found;
        waiting->expected = *window;
    }
    return found && predictor->misses < MISSES;
}

static uint64_t earlier(uint64_t a_ns, uint64_t b_ns) {
    return a_ns < b_ns ? a_ns : b_ns;
}

/* Polls until `end_ns`; if too many others poll already, only for a moment. In that moment one of
 * them may stop: a sender begins to wait before its receiver has stopped polling. */
static bool poll_until(struct strategy *strategy, struct waiting *waiting,
                       const struct waiter *waiter, uint64_t end_ns) {
    uint64_t began = monotonic_ns();
    if (wait_poll(waiter, earlier(began + SHORT_NS, end_ns)))
        return true;
    bool ready = false;
    if (may_poll(strategy->spinners)) {
        ready = wait_poll(waiter, end_ns);
        has_polled(strategy->spinners);
        waiting->polled_ns += monotonic_ns() - began;
    } else {
        waiting->polled_ns = WINDOW_NS;
    }
    return ready;
}

static enum wait_result wait_auto(struct strategy *strategy, struct waiting *waiting,
                                  const struct waiter *waiter, uint64_t deadline_ns) {
    struct window window = {0, 0};
    if (!waiting->polled_first) {
        waiting->polled_first = true;
        if (predict_is_short(predictor_of(strategy, waiting)) &&
            wait_poll(waiter, earlier(waiting->start_ns + SHORT_NS, deadline_ns)))
            return WAIT_READY;
    }
    uint64_t now = monotonic_ns();
    while (next_window(strategy, waiting, now, &window)) {
        uint64_t from_ns = waiting->start_ns + window.from_ns;
        uint64_t end_ns = waiting->start_ns + window.to_ns + GUARD_NS;
        uint64_t lead_ns = from_ns > now ? *lateness_of(strategy, from_ns - now) + GUARD_NS : 0;
        if (from_ns > now + lead_ns + SLEEP_NS) {
            uint64_t wake_ns = from_ns - lead_ns;
            enum wait_result slept = sleep_until(strategy, waiter, earlier(wake_ns, deadline_ns));
            if (slept != WAIT_TIMEOUT || deadline_ns <= wake_ns)
                return slept;
        }
        if (poll_until(strategy, waiting, waiter, earlier(end_ns, deadline_ns)))
            return WAIT_READY;
        now = monotonic_ns();
        if (now >= deadline_ns)
            return WAIT_TIMEOUT;
    }
    return wait_until(waiter, 0, deadline_ns);
}

/* The strategy that WAIT_AWAKE stands for now, and until when. The engine uses the time that its
 * ranks leave on a shared core, so the core doesn't go idle during a step. When the ranks are
 * silent for longer than steps take, it sleeps. */
static enum wait_strategy awake_now(struct strategy *strategy, const struct waiting *waiting,
                                    uint64_t now_ns, uint64_t *end_ns) {
    uint64_t usual_ns = predict_longest(predictor_of(strategy, waiting));
    if (usual_ns < STEP_NS)
        return WAIT_AUTO;
    uint64_t silence_ns = waiting->start_ns + earlier(2 * usual_ns, AWAKE_NS);
    if (now_ns >= silence_ns)
        return WAIT_PARK;
    *end_ns = earlier(*end_ns, silence_ns);
    return WAIT_YIELD;
}

enum wait_result strategy_wait(struct strategy *strategy, struct waiting *waiting,
                               const struct waiter *waiter, uint64_t deadline_ns) {
    uint64_t now = monotonic_ns(), end_ns = deadline_ns;
    enum wait_strategy kind = strategy->kind;
    waiting->at_once = false; /* the first poll may have found a part of a message */
    /* The number of cores may have changed. A wait that has come this far has time to check. */
    strategy->spin_ns = spin_ns_of(strategy);
    if (kind == WAIT_AWAKE)
        kind = is_crowded(strategy) ? awake_now(strategy, waiting, now, &end_ns) : WAIT_AUTO;
    bool polls = kind == WAIT_SPIN || kind == WAIT_YIELD;
    end_ns = earlier(end_ns, now + (polls ? POLL_NS : DOZE_NS));
    enum wait_result result;
    if (kind == WAIT_SPIN)
        result = wait_spin(waiter, end_ns) ? WAIT_READY : WAIT_TIMEOUT;
    else if (kind == WAIT_YIELD)
        result = wait_poll(waiter, end_ns) ? WAIT_READY : WAIT_TIMEOUT;
    else if (kind == WAIT_PARK)
        result = wait_until(waiter, 0, end_ns);
    else
        result = wait_auto(strategy, waiting, waiter, end_ns);
    return result == WAIT_TIMEOUT && end_ns < deadline_ns ? WAIT_SIGNAL : result;
}

/* From the start of the wait until the message was sent. */
static uint64_t gap_until(const struct waiting *waiting, uint64_t sent_ns) {
    if (waiting->at_once)
        return 0;
    return (sent_ns < waiting->start_ns ? monotonic_ns() : sent_ns) - waiting->start_ns;
}

void strategy_learn(struct strategy *strategy, const struct waiting *waiting,
                    const struct waiter *waiter, uint64_t sent_ns) {
    struct predictor *predictor = predictor_of(strategy, waiting);
    uint64_t gap_ns = gap_until(waiting, sent_ns);
    predict_learn(predictor, gap_ns, gap_ns < SHORT_NS);
    if (!waiting->predicted)
        return;
    if (gap_ns + GUARD_NS >= waiting->expected.from_ns &&
        gap_ns <= waiting->expected.to_ns + GUARD_NS) {
        predictor->misses = 0;
    } else {
        predictor->misses += predictor->misses < MISSES;
        wait_count(waiter, COUNT_MISPREDICTED);
    }
}
