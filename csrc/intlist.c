#include "intlist.h"

#include <stdlib.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "low bytes are taken as prefixes");

enum changes { CHANGES_ALL = 1, CHANGES_SOME = 2 }; /* 0: none; else 2 + how many */
enum edits { EDIT_SAME, EDIT_CUT, EDIT_PATCH, EDIT_ALL };

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

/* Seven bits a byte, the low ones first; the high bit says that another byte follows. */
void pack_varint(struct packer *packer, uint64_t value) {
    if (!pack_reserve(packer, 10))
        return;
    while (value >= 0x80) {
        packer->bytes[packer->length++] = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    packer->bytes[packer->length++] = (uint8_t)value;
}

/* The sign goes into the lowest bit, so that small negative numbers stay small. */
void pack_signed(struct packer *packer, int64_t value) {
    pack_varint(packer, ((uint64_t)value << 1) ^ (value < 0 ? UINT64_MAX : 0));
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
    /* Eight bytes are stored each time; the next ones overwrite those that don't belong. */
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

enum { ONES_WIDTH = 0, ONES_LOW = 2 }; /* no bytes each, above 1 */

void pack_ones(struct packer *packer) {
    pack_byte(packer, ONES_WIDTH);
    pack_byte(packer, ONES_LOW);
}

bool unpack_ones(struct unpacker *unpacker) {
    const uint8_t *at = unpacker->at;
    if (unpacker->bad || unpacker->end - at < 2 || at[0] != ONES_WIDTH || at[1] != ONES_LOW)
        return false;
    unpacker->at += 2;
    return true;
}

static int64_t difference(int64_t a, int64_t b) {
    return (int64_t)((uint64_t)a - (uint64_t)b);
}

static int64_t sum(int64_t a, int64_t b) {
    return (int64_t)((uint64_t)a + (uint64_t)b);
}

size_t pack_changes(struct packer *packer, const int64_t *predicted, const int64_t *actual,
                    size_t n) {
    size_t changed = 0;
    for (size_t i = 0; i < n; i++)
        changed += predicted[i] != actual[i];
    if (changed == 0) {
        pack_byte(packer, 0);
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
            pack_signed(packer, difference(actual[i], predicted[i]));
            next = i + 1;
        }
    }
    return changed;
}

size_t unpack_changes(struct unpacker *unpacker, int64_t *values, size_t n) {
    uint64_t how = unpack_varint(unpacker);
    if (how == 0)
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
        next += (size_t)gap;
        values[next] = sum(values[next], change);
        next++;
    }
    return (size_t)(how - CHANGES_SOME);
}

/* How many of `base` have to be cut out until the rest begins `target`; `kept` is how many stay. */
static size_t count_cuts(const struct slots *base, const struct slots *target, size_t *kept) {
    size_t j = 0;
    for (size_t i = 0; i < base->n; i++)
        j += j < target->n && base->at[i] == target->at[j];
    *kept = j;
    return base->n - j;
}

static size_t count_patches(const struct slots *base, const struct slots *target) {
    size_t shared = base->n < target->n ? base->n : target->n;
    size_t patches = target->n - shared;
    for (size_t i = 0; i < shared; i++)
        patches += base->at[i] != target->at[i];
    return patches;
}

size_t edit_cost(const struct slots *base, const struct slots *target) {
    size_t kept, cuts = count_cuts(base, target, &kept);
    size_t cut_cost = cuts + 2 * (target->n - kept), patch_cost = 3 * count_patches(base, target);
    return cut_cost < patch_cost ? cut_cost : patch_cost;
}

static void pack_cuts(struct packer *packer, const struct slots *base, const struct slots *target,
                      size_t cuts) {
    size_t kept = 0, next = 0;
    pack_varint(packer, cuts);
    for (size_t i = 0; i < base->n; i++) {
        if (kept < target->n && base->at[i] == target->at[kept]) {
            kept++;
        } else {
            pack_varint(packer, i - next);
            next = i + 1;
        }
    }
}

static void pack_slots(struct packer *packer, const uint32_t *at, size_t n) {
    int64_t last = -1; /* slots are often given out in order */
    pack_varint(packer, n);
    for (size_t i = 0; i < n; i++) {
        pack_signed(packer, (int64_t)at[i] - last - 1);
        last = at[i];
    }
}

static void pack_patches(struct packer *packer, const struct slots *base,
                         const struct slots *target, size_t patches) {
    size_t next = 0;
    pack_varint(packer, target->n);
    pack_varint(packer, patches);
    for (size_t i = 0; i < target->n; i++) {
        if (i < base->n && base->at[i] == target->at[i])
            continue;
        pack_varint(packer, i - next);
        pack_varint(packer, target->at[i]);
        next = i + 1;
    }
}

bool pack_edits(struct packer *packer, const struct slots *base, const struct slots *target) {
    if (slots_equal(base, target)) {
        pack_byte(packer, EDIT_SAME);
        return true;
    }
    size_t kept, cuts = count_cuts(base, target, &kept), patches = count_patches(base, target);
    /* Estimates in bytes: a gap takes one, a slot out of order two. */
    size_t cut_cost = cuts + 2 * (target->n - kept), patch_cost = 3 * patches;
    if (target->n <= cut_cost && target->n <= patch_cost) {
        pack_byte(packer, EDIT_ALL);
        pack_slots(packer, target->at, target->n);
    } else if (cut_cost <= patch_cost) {
        pack_byte(packer, EDIT_CUT);
        pack_cuts(packer, base, target, cuts);
        pack_slots(packer, target->at + kept, target->n - kept);
    } else {
        pack_byte(packer, EDIT_PATCH);
        pack_patches(packer, base, target, patches);
    }
    return false;
}

static void unpack_slots(struct unpacker *unpacker, struct slots *target) {
    size_t n = unpack_length(unpacker), before = target->n;
    /* Each takes a byte at least. */
    if (n > (size_t)(unpacker->end - unpacker->at) || !slots_resize(target, before + n)) {
        unpacker->bad = true;
        return;
    }
    int64_t last = -1;
    for (size_t i = 0; i < n; i++) {
        last = sum(sum(unpack_signed(unpacker), last), 1);
        target->at[before + i] = (uint32_t)last;
    }
}

static void unpack_cuts(struct unpacker *unpacker, const struct slots *base, struct slots *target) {
    size_t cuts = unpack_length(unpacker), next = 0;
    if (!slots_resize(target, base->n)) {
        unpacker->bad = true;
        return;
    }
    size_t n = 0;
    for (size_t left = cuts; left > 0 && !unpacker->bad; left--) {
        uint64_t gap = unpack_varint(unpacker);
        if (gap >= base->n - next) {
            unpacker->bad = true;
            return;
        }
        memcpy(target->at + n, base->at + next, (size_t)gap * sizeof *base->at);
        n += (size_t)gap;
        next += (size_t)gap + 1;
    }
    if (next < base->n)
        memcpy(target->at + n, base->at + next, (base->n - next) * sizeof *base->at);
    target->n = n + base->n - next;
    unpack_slots(unpacker, target);
}

static void unpack_patches(struct unpacker *unpacker, const struct slots *base,
                           struct slots *target) {
    size_t n = unpack_length(unpacker), shared = base->n < n ? base->n : n;
    size_t patches = unpack_length(unpacker), next = 0;
    /* A patch is two numbers, of a byte at least. */
    if (unpacker->bad || patches < n - shared ||
        patches > (size_t)(unpacker->end - unpacker->at) / 2 || !slots_resize(target, n)) {
        unpacker->bad = true;
        return;
    }
    if (n > shared)
        memset(target->at + shared, 0xFF, (n - shared) * sizeof *target->at);
    if (shared > 0)
        memcpy(target->at, base->at, shared * sizeof *base->at);
    for (size_t left = patches; left > 0 && !unpacker->bad; left--) {
        uint64_t gap = unpack_varint(unpacker), slot = unpack_varint(unpacker);
        if (gap >= n - next || slot > UINT32_MAX) {
            unpacker->bad = true;
            return;
        }
        next += (size_t)gap;
        target->at[next++] = (uint32_t)slot;
    }
}

bool unpack_edits(struct unpacker *unpacker, const struct slots *base, struct slots *target) {
    target->n = 0;
    switch (unpack_byte(unpacker)) {
    case EDIT_SAME:
        if (!unpacker->bad && !slots_copy(target, base))
            unpacker->bad = true;
        return true;
    case EDIT_CUT:
        unpack_cuts(unpacker, base, target);
        return false;
    case EDIT_PATCH:
        unpack_patches(unpacker, base, target);
        return false;
    case EDIT_ALL:
        unpack_slots(unpacker, target);
        return false;
    default:
        unpacker->bad = true;
        return false;
    }
}

bool slots_resize(struct slots *slots, size_t n) {
    if (n > slots->capacity) {
        size_t capacity = n < 64 ? 64 : n + n / 2;
        uint32_t *at = realloc(slots->at, capacity * sizeof *at);
        if (!at)
            return false;
        slots->at = at;
        slots->capacity = capacity;
    }
    slots->n = n;
    return true;
}

bool slots_equal(const struct slots *a, const struct slots *b) {
    return a->n == b->n && (a->n == 0 || memcmp(a->at, b->at, a->n * sizeof *a->at) == 0);
}

bool slots_copy(struct slots *to, const struct slots *from) {
    if (!slots_resize(to, from->n))
        return false;
    if (from->n > 0)
        memcpy(to->at, from->at, from->n * sizeof *from->at);
    return true;
}

void slots_free(struct slots *slots) {
    free(slots->at);
    *slots = (struct slots){0};
}
