#include "packing/ints.h"

#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "low bytes are taken as prefixes");

enum changes { CHANGES_NONE, CHANGES_ALL, CHANGES_SOME /* plus how many */ };

static unsigned width_of(uint64_t largest) {
    unsigned width = 0;
    while (width < 8 && largest >> (8 * width) != 0)
        width++;
    return width;
}

void pack_ints(struct packer *packer, const int64_t *values, size_t n) {
    if (n == 0)
        return;
    int64_t low = values[0], high = values[0];
    for (size_t i = 1; i < n; i++) {
        low = values[i] < low ? values[i] : low;
        high = values[i] > high ? values[i] : high;
    }
    unsigned width = width_of((uint64_t)high - (uint64_t)low);
    pack_byte(packer, (uint8_t)width);
    pack_signed(packer, low);
    if (width == 0 || !pack_reserve(packer, n * width + 8))
        return;
    /* Stores eight bytes each time: the next store overwrites those beyond the width. */
    uint8_t *at = packer->bytes + packer->length;
    for (size_t i = 0; i < n; i++, at += width) {
        uint64_t above = (uint64_t)values[i] - (uint64_t)low;
        memcpy(at, &above, sizeof above);
    }
    packer->length += n * width;
}

void unpack_ints(struct unpacker *unpacker, int64_t *values, size_t n) {
    if (n == 0)
        return;
    unsigned width = unpack_byte(unpacker);
    int64_t low = unpack_signed(unpacker);
    if (width > 8 || n > MAX_LIST)
        unpacker->bad = true;
    const uint8_t *at = unpack_bytes(unpacker, n * width);
    if (!at) {
        memset(values, 0, n * sizeof *values);
        return;
    }
    uint64_t mask = width < 8 ? (UINT64_C(1) << (8 * width)) - 1 : UINT64_MAX;
    for (size_t i = 0; i < n; i++, at += width) {
        uint64_t above = 0;
        if ((size_t)(unpacker->end - at) >= sizeof above)
            memcpy(&above, at, sizeof above);
        else
            memcpy(&above, at, width);
        values[i] = (int64_t)((uint64_t)low + (above & mask));
    }
}

size_t pack_changes(struct packer *packer, const int64_t *predicted, const int64_t *actual,
                    size_t n) {
    size_t changed = 0;
    for (size_t i = 0; i < n; i++)
        changed += predicted[i] != actual[i];
    if (changed == 0) {
        pack_byte(packer, CHANGES_NONE);
    } else if (changed > n / 2) {
        pack_byte(packer, CHANGES_ALL);
        pack_ints(packer, actual, n);
    } else {
        pack_varint(packer, CHANGES_SOME + changed);
        size_t next = 0;
        for (size_t i = 0; i < n; i++) {
            if (predicted[i] == actual[i])
                continue;
            pack_varint(packer, i - next);
            pack_signed(packer, (int64_t)((uint64_t)actual[i] - (uint64_t)predicted[i]));
            next = i + 1;
        }
    }
    return changed;
}

size_t unpack_changes(struct unpacker *unpacker, int64_t *values, size_t n) {
    uint64_t how = unpack_varint(unpacker);
    if (how == CHANGES_NONE)
        return 0;
    if (how == CHANGES_ALL) {
        unpack_ints(unpacker, values, n);
        return n;
    }
    size_t next = 0;
    for (uint64_t left = how - CHANGES_SOME; left > 0 && !unpacker->bad; left--) {
        uint64_t gap = unpack_varint(unpacker);
        int64_t change = unpack_signed(unpacker);
        if (gap >= n - next) {
            unpacker->bad = true;
            return 0;
        }
        next += (size_t)gap + 1;
        values[next - 1] = (int64_t)((uint64_t)values[next - 1] + (uint64_t)change);
    }
    return (size_t)(how - CHANGES_SOME);
}
