/* When is the next message due? Answered from how long the last waits of the same kind have taken.
 *
 * The last few times themselves, and no mean of them: what is waited for often comes in two ways, a
 * short one and a long one, and never in between. One thread's, in its own memory. */
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
    uint32_t shorts; /* a bit for each of the past times, newest first: was it a short one? */
    uint32_t misses; /* predictions in a row that did not come true */
};

/* Nanoseconds since the start of the wait. */
struct window {
    uint64_t from_ns, to_ns;
};

void predict_learn(struct predictor *predictor, uint64_t gap_ns, bool is_short);

/* Whether at least a quarter were short ones, or there is too little to go by. */
bool predict_is_short(const struct predictor *predictor);

/* The longest of the past times but one: a single long one says little. 0 if there is too little to
 * go by. */
uint64_t predict_longest(const struct predictor *predictor);

/* The window of at most `width_ns`, after `elapsed_ns`, into which most of the past times fall, the
 * newer ones counting more. False if that is less than a quarter of what is still possible. */
bool predict_window(const struct predictor *predictor, uint64_t elapsed_ns, uint64_t width_ns,
                    struct window *window);

#endif
