/* Lists of integers as bytes: packed, as changes against a prediction, as edits of another list.
 * No Python in here. Both ends run on one machine: the byte order is its own. */
#ifndef MPSPMD_INTLIST_H
#define MPSPMD_INTLIST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    MAX_LIST = 1 << 27
}; /* longer ones are refused: a corrupt length must not take all memory */

/* Grows as it is written to. After `failed` (no memory) writing does nothing. */
struct packer {
    uint8_t *bytes;
    size_t length, capacity;
    bool failed;
};

/* Reads within [at, end). After `bad` everything read is 0. */
struct unpacker {
    const uint8_t *at, *end;
    bool bad;
};

/* Slots: small numbers that stand for what both ends hold. */
struct slots {
    uint32_t *at;
    size_t n, capacity;
};

bool pack_reserve(struct packer *packer, size_t more);
void pack_byte(struct packer *packer, uint8_t byte);
void pack_bytes(struct packer *packer, const void *bytes, size_t length);
void pack_varint(struct packer *packer, uint64_t value);
void pack_signed(struct packer *packer, int64_t value);

uint8_t unpack_byte(struct unpacker *unpacker);
const uint8_t *unpack_bytes(struct unpacker *unpacker,
                            size_t length); /* NULL if there aren't any */
uint64_t unpack_varint(struct unpacker *unpacker);
int64_t unpack_signed(struct unpacker *unpacker);
size_t unpack_length(struct unpacker *unpacker); /* a varint of at most MAX_LIST, else bad */

/* As many bytes each as the widest needs, above the smallest. Both ends know `n`; equal numbers
 * take no space. */
void pack_ints(struct packer *packer, const int64_t *values, size_t n);
void unpack_ints(struct unpacker *unpacker, int64_t *values, size_t n);

/* The same of ones only, one or more. True: there were ones. If not, nothing has been read. */
void pack_ones(struct packer *packer);
bool unpack_ones(struct unpacker *unpacker);

/* What differs from `predicted`: nothing, some positions, or everything if that is smaller. The
 * number of positions that differ. */
size_t pack_changes(struct packer *packer, const int64_t *predicted, const int64_t *actual,
                    size_t n);
/* `values` holds the prediction, and then what was packed. */
size_t unpack_changes(struct unpacker *unpacker, int64_t *values, size_t n);

/* How `target` comes from `base`: the same, some cut out and others appended, some positions
 * replaced, or all of it, whichever is smallest. True when they are the same. */
size_t edit_cost(const struct slots *base, const struct slots *target); /* bytes, about */
bool pack_edits(struct packer *packer, const struct slots *base, const struct slots *target);
/* `target` must not be `base`. */
bool unpack_edits(struct unpacker *unpacker, const struct slots *base, struct slots *target);

bool slots_resize(struct slots *slots, size_t n); /* false: no memory, and nothing has changed */
bool slots_equal(const struct slots *a, const struct slots *b);
bool slots_copy(struct slots *to, const struct slots *from);
void slots_free(struct slots *slots);

#endif
