#include "packing/digest.h"

#include <string.h>

struct digest digest_begin(uint64_t seed) {
    return (struct digest){.value = digest_word(seed, 0x6D70)};
}

static uint64_t word_at(const uint8_t *bytes) {
    uint64_t word;
    memcpy(&word, bytes, sizeof word);
    return word;
}

void digest_add(struct digest *digest, const void *bytes, size_t length) {
    const uint8_t *at = bytes, *end = at + length;
    size_t held = digest->length % 8;
    digest->length += length;
    if (held > 0) {
        while (held < 8 && at < end)
            digest->rest[held++] = *at++;
        if (held < 8)
            return;
        digest->value = digest_word(digest->value, word_at(digest->rest));
    }
    uint64_t value = digest->value;
    for (; end - at >= 8; at += 8)
        value = digest_word(value, word_at(at));
    digest->value = value;
    if (at < end)
        memcpy(digest->rest, at, (size_t)(end - at));
}

uint64_t digest_end(const struct digest *digest) {
    uint8_t last[8] = {0};
    memcpy(last, digest->rest, digest->length % 8);
    return digest_word(digest_word(digest->value, word_at(last)), digest->length);
}
