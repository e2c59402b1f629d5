#include "load.h"

#include <string.h>

uint64_t mix(uint64_t value) {
    value += UINT64_C(0x9e3779b97f4a7c15);
    value = (value ^ value >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    value = (value ^ value >> 27) * UINT64_C(0x94d049bb133111eb);
    return value ^ value >> 31;
}

static uint64_t word_at(uint64_t key, uint64_t index) {
    uint64_t word = (key ^ index) * UINT64_C(0x9e3779b97f4a7c15);
    return word ^ word >> 29;
}

/* Mostly small, as steps are; the rest up to thrice the ring. */
static uint64_t total_of(const struct load *load, uint64_t key) {
    uint64_t percent = key % 100, size = mix(key ^ 1);
    if (percent < 90)
        return size % 65;
    if (percent < 99)
        return size % 1025;
    return size % (LOAD_MAX_RINGS * load->capacity + 1);
}

struct sample load_sample(const struct load *load, uint64_t sequence) {
    uint64_t key = mix(load->seed ^ mix(sequence));
    return (struct sample){
        .sequence = sequence,
        .key = key,
        .total = total_of(load, key),
        .kind = (uint16_t)(key >> 16),
        .impatient = key >> 32 & 1,
    };
}

size_t load_fill(const struct sample *sample, unsigned char *bytes, struct iovec *parts) {
    for (uint64_t at = 0; at < sample->total; at += 8) {
        uint64_t word = word_at(sample->key, at), left = sample->total - at;
        memcpy(bytes + at, &word, left < 8 ? left : 8);
    }
    size_t n_parts = 1 + (sample->key >> 40) % LOAD_MAX_PARTS;
    uint64_t from = 0;
    for (size_t i = 0; i < n_parts; i++) {
        uint64_t left = sample->total - from;
        uint64_t length = i + 1 == n_parts ? left : mix(sample->key + i) % (left + 1);
        parts[i] = (struct iovec){bytes + from, length};
        from += length;
    }
    return n_parts;
}

uint64_t load_first_difference(const struct sample *sample, const unsigned char *bytes) {
    for (uint64_t at = 0; at < sample->total; at += 8) {
        uint64_t word = word_at(sample->key, at), found = word, left = sample->total - at;
        memcpy(&found, bytes + at, left < 8 ? left : 8);
        if (found != word)
            return at;
    }
    return sample->total;
}
