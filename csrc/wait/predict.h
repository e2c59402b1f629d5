/* Predicts when the next message is due, from how long the last waits of the same kind took.
 *
 * Keeps the last few times instead of their mean: waits are often either short or long, and never
 * in between. One thread only. */
#ifndef MPSPMD_WAIT_PREDICT_H
#define MPSPMD_WAIT_PREDICT_H

#include <stdbool.h>
#include <stdint.h>

enum {
    PREDICT_SAMPLES = 16, /* a changed rhythm has the majority of the weight after five */
    PREDICT_ENOUGH = 4,   /* with fewer there is no prediction */
};

struct predictor {
    uint64_t gaps_ns[PREDICT_SAMPLES]; /* from the start of a wait until the message was sent */
    uint32_t next;
    uint32_t learnt;
    uint32_t shorts; /* a bit for each of the past times, newest first: was it short? */
    uint32_t misses; /* how many predictions in a row were wrong */
};

/* Nanoseconds since the start of the wait. */
struct window {
    uint64_t from_ns, to_ns;
};

void predict_learn(struct predictor *predictor, uint64_t gap_ns, bool is_short);

/* Whether at least a quarter of the past times were short, or too few are known. */
bool predict_is_short(const struct predictor *predictor);

/* The second-longest of the past times, because a single long one says little. 0 if too few are
 * known. */
uint64_t predict_longest(const struct predictor *predictor);

/* The window of at most `width_ns`, after `elapsed_ns`, into which most of the past times fall.
 * Newer ones count more. False if it has less than a quarter of the times that are still possible.
 */
bool predict_window(const struct predictor *predictor, uint64_t elapsed_ns, uint64_t width_ns,
                    struct window *window);

#endif
