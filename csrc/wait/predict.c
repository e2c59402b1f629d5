#include "wait/predict.h"

void predict_learn(struct predictor *predictor, uint64_t gap_ns, bool is_short) {
    predictor->shorts = (predictor->shorts << 1 | is_short) & ((1U << PREDICT_SAMPLES) - 1);
    predictor->gaps_ns[predictor->next] = gap_ns;
    predictor->next = (predictor->next + 1) % PREDICT_SAMPLES;
    if (predictor->learnt < PREDICT_SAMPLES)
        predictor->learnt++;
}

bool predict_is_short(const struct predictor *predictor) {
    return predictor->learnt < PREDICT_ENOUGH ||
           4 * (uint32_t)__builtin_popcount(predictor->shorts) >= predictor->learnt;
}

uint64_t predict_longest(const struct predictor *predictor) {
    uint64_t longest = 0, second = 0;
    for (uint32_t i = 0; i < predictor->learnt; i++) {
        uint64_t gap_ns = predictor->gaps_ns[i];
        if (gap_ns > longest) {
            second = longest;
            longest = gap_ns;
        } else if (gap_ns > second) {
            second = gap_ns;
        }
    }
    return predictor->learnt < PREDICT_ENOUGH ? 0 : second;
}

struct sample {
    uint64_t gap_ns;
    uint32_t weight;
};

/* The past times that are longer than `elapsed_ns`, shortest first. Returns how many. */
static uint32_t remaining(const struct predictor *predictor, uint64_t elapsed_ns,
                          struct sample *sorted) {
    uint32_t n = 0;
    for (uint32_t age = 0; age < predictor->learnt; age++) {
        uint32_t at = (predictor->next + 2 * PREDICT_SAMPLES - 1 - age) % PREDICT_SAMPLES;
        uint64_t gap_ns = predictor->gaps_ns[at];
        if (gap_ns <= elapsed_ns)
            continue;
        uint32_t place = n++;
        for (; place > 0 && sorted[place - 1].gap_ns > gap_ns; place--)
            sorted[place] = sorted[place - 1];
        sorted[place] = (struct sample){gap_ns, PREDICT_SAMPLES - age};
    }
    return n;
}

bool predict_window(const struct predictor *predictor, uint64_t elapsed_ns, uint64_t width_ns,
                    struct window *window) {
    struct sample sorted[PREDICT_SAMPLES];
    if (predictor->learnt < PREDICT_ENOUGH)
        return false;
    uint32_t n = remaining(predictor, elapsed_ns, sorted);
    uint32_t total = 0, inside = 0, best = 0, first = 0;
    for (uint32_t last = 0; last < n; last++) {
        total += sorted[last].weight;
        inside += sorted[last].weight;
        while (sorted[last].gap_ns - sorted[first].gap_ns > width_ns)
            inside -= sorted[first++].weight;
        if (inside > best) {
            best = inside;
            *window = (struct window){sorted[first].gap_ns, sorted[last].gap_ns};
        }
    }
    return best > 0 && 4 * best >= total;
}
