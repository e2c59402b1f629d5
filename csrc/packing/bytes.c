#include "packing/bytes.h"

#include <stdlib.h>
#include <string.h>

bool pack_reserve(struct packer *packer, size_t more) {
    if (packer->failed)
        return false;
    if (packer->length + more <= packer->capacity)
        return true;
    size_t capacity = packer->capacity ? packer->capacity : 1024;
    while (capacity < packer->length + more)
        capacity *= 2;
    uint8_t *bytes = realloc(packer->bytes, capacity);
    packer->failed = !bytes;
    if (!bytes)
        return false;
    packer->bytes = bytes;
    packer->capacity = capacity;
    return true;
}

void pack_byte(struct packer *packer, uint8_t byte) {
    if (pack_reserve(packer, 1))
        packer->bytes[packer->length++] = byte;
}

void pack_bytes(struct packer *packer, const void *bytes, size_t length) {
    if (length > 0 && pack_reserve(packer, length)) {
        memcpy(packer->bytes + packer->length, bytes, length);
        packer->length += length;
    }
}

void pack_varint(struct packer *packer, uint64_t value) {
    if (!pack_reserve(packer, 10))
        return;
    while (value >= 0x80) {
        packer->bytes[packer->length++] = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    packer->bytes[packer->length++] = (uint8_t)value;
}

void pack_signed(struct packer *packer, int64_t value) {
    pack_varint(packer, ((uint64_t)value << 1) ^ (value < 0 ? UINT64_MAX : 0));
}

void pack_sized(struct packer *packer, const void *bytes, size_t length) {
    pack_varint(packer, length);
    pack_bytes(packer, bytes, length);
}

uint8_t unpack_byte(struct unpacker *unpacker) {
    const uint8_t *byte = unpack_bytes(unpacker, 1);
    return byte ? *byte : 0;
}

const uint8_t *unpack_bytes(struct unpacker *unpacker, size_t length) {
    if (unpacker->bad || length > (size_t)(unpacker->end - unpacker->at)) {
        unpacker->bad = true;
        return NULL;
    }
    const uint8_t *bytes = unpacker->at;
    unpacker->at += length;
    return bytes;
}

uint64_t unpack_varint(struct unpacker *unpacker) {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64 && !unpacker->bad; shift += 7) {
        uint8_t byte = unpack_byte(unpacker);
        value |= (uint64_t)(byte & 0x7F) << shift;
        if (byte < 0x80)
            return unpacker->bad ? 0 : value;
    }
    unpacker->bad = true;
    return 0;
}

int64_t unpack_signed(struct unpacker *unpacker) {
    uint64_t value = unpack_varint(unpacker);
    return (int64_t)((value >> 1) ^ (value & 1 ? UINT64_MAX : 0));
}

size_t unpack_length(struct unpacker *unpacker) {
    uint64_t length = unpack_varint(unpacker);
    if (length <= MAX_LIST)
        return (size_t)length;
    unpacker->bad = true;
    return 0;
}
