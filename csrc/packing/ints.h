/* Lists of 64-bit integers as bytes: packed, and as changes against a prediction. */
#ifndef MPSPMD_PACKING_INTS_H
#define MPSPMD_PACKING_INTS_H

#include "packing/bytes.h"

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

#endif
