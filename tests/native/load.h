/* A stream of messages: everything about number `sequence` follows from it and the seed, so that
 * each side makes the message by itself and no byte goes unchecked. */
#ifndef NATIVE_LOAD_H
#define NATIVE_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

enum { LOAD_MAX_PARTS = 4, LOAD_MAX_RINGS = 3 /* the longest message, in times the capacity */ };

struct load {
    uint64_t seed;
    uint64_t capacity;
};

struct sample {
    uint64_t sequence; /* goes as the tag */
    uint64_t key;
    uint64_t total;
    uint16_t kind;
    bool impatient; /* its writer gives up when it has to wait for space */
};

uint64_t mix(uint64_t value);

struct sample load_sample(const struct load *load, uint64_t sequence);

/* Writes the sample's bytes, and cuts them into 1 to 4 parts, some perhaps empty. */
size_t load_fill(const struct sample *sample, unsigned char *bytes, struct iovec *parts);

/* The first byte that is not the sample's; its total if there is none. */
uint64_t load_first_difference(const struct sample *sample, const unsigned char *bytes);

#endif
