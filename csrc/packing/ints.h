/* Lists of 64-bit integers as bytes: packed, and as changes against a prediction. */
#ifndef MPSPMD_PACKING_INTS_H
#define MPSPMD_PACKING_INTS_H

#include "packing/bytes.h"

/* The smallest number, then each one's distance from it, in as few bytes as the largest distance
 * needs. Equal numbers take none. Both ends know `n`. */
void pack_ints(struct packer *packer, const int64_t *values, size_t n);
void unpack_ints(struct unpacker *unpacker, int64_t *values, size_t n);

/* What differs from `predicted`: some positions, or everything if that is smaller. Returns how many
 * positions differ. */
size_t pack_changes(struct packer *packer, const int64_t *predicted, const int64_t *actual,
                    size_t n);
/* Turns the prediction in `values` into what was packed. */
size_t unpack_changes(struct unpacker *unpacker, int64_t *values, size_t n);

#endif
