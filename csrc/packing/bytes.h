/* Numbers as bytes, and back. Both ends run on one machine and use its byte order. */
#ifndef MPSPMD_PACKING_BYTES_H
#define MPSPMD_PACKING_BYTES_H

#if __SIZEOF_POINTER__ != 8
#error "mpspmd needs a 64-bit system: lengths and numbers have 8 bytes"
#endif

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MAX_LIST = 1 << 27 }; /* the longest list: a corrupt length must not take all memory */

/* Memory that grows with each write. After `failed` (no memory) writing does nothing. */
struct packer {
    uint8_t *bytes;
    size_t length, capacity;
    bool failed;
};

/* Reads within [at, end). Reading beyond sets `bad`, and gives 0 from then on. */
struct unpacker {
    const uint8_t *at, *end;
    bool bad;
};

bool pack_reserve(struct packer *packer, size_t more);
void pack_byte(struct packer *packer, uint8_t byte);
void pack_bytes(struct packer *packer, const void *bytes, size_t length);
void pack_sized(struct packer *packer, const void *bytes, size_t length); /* after the length */
/* Seven bits a byte, the low ones first; the high bit says that another byte follows. */
void pack_varint(struct packer *packer, uint64_t value);
/* A varint with the sign in the lowest bit, so that small negative numbers stay short. */
void pack_signed(struct packer *packer, int64_t value);

uint8_t unpack_byte(struct unpacker *unpacker);
/* NULL if there are fewer. */
const uint8_t *unpack_bytes(struct unpacker *unpacker, size_t length);
uint64_t unpack_varint(struct unpacker *unpacker);
int64_t unpack_signed(struct unpacker *unpacker);
size_t unpack_length(struct unpacker *unpacker); /* a varint of at most MAX_LIST, else bad */

#endif
