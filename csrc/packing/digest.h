/* A 64-bit digest against accidents (a flipped byte, a lost message), not against an adversary. */
#ifndef MPSPMD_PACKING_DIGEST_H
#define MPSPMD_PACKING_DIGEST_H

#include <stddef.h>
#include <stdint.h>

/* The digest depends on the bytes, and not on how they are divided between calls. */
struct digest {
    uint64_t value, length;
    uint8_t rest[8]; /* the last length % 8 bytes, which aren't a whole word yet */
};

struct digest digest_begin(uint64_t seed);
void digest_add(struct digest *digest, const void *bytes, size_t length);
uint64_t digest_end(const struct digest *digest);

/* One step. From one value, different words lead to different values. */
static inline uint64_t digest_word(uint64_t value, uint64_t word) {
    value = (value ^ word) * UINT64_C(0x9E3779B97F4A7C15);
    return value ^ (value >> 32);
}

#endif
