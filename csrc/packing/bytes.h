/* Writing and reading bytes: memory that grows, and a part of a message that nothing is read
 * beyond. Both ends run on one machine: the byte order is its own. */
#ifndef MPSPMD_PACKING_BYTES_H
#define MPSPMD_PACKING_BYTES_H

#if __SIZEOF_POINTER__ != 8
#error "mpspmd needs a 64-bit system: lengths and numbers have 8 bytes"
#endif

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MAX_LIST = 1 << 27 }; /* longer: refused, a corrupt length must not take all memory */

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

bool pack_reserve(struct packer *packer, size_t more);
void pack_byte(struct packer *packer, uint8_t byte);
void pack_bytes(struct packer *packer, const void *bytes, size_t length);
void pack_varint(struct packer *packer, uint64_t value);
void pack_signed(struct packer *packer, int64_t value);

uint8_t unpack_byte(struct unpacker *unpacker);
/* NULL if there aren't so many. */
const uint8_t *unpack_bytes(struct unpacker *unpacker, size_t length);
uint64_t unpack_varint(struct unpacker *unpacker);
int64_t unpack_signed(struct unpacker *unpacker);
size_t unpack_length(struct unpacker *unpacker); /* a varint of at most MAX_LIST, else bad */

#endif
