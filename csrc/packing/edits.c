#include "packing/edits.h"

#include <stdlib.h>
#include <string.h>

enum edits { EDIT_SAME, EDIT_CUT, EDIT_ALL };

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

static bool slots_equal(const struct slots *a, const struct slots *b) {
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

/* How many of `base` must be cut out so that the rest is the beginning of `target`. `kept` is how
 * many stay. */
static size_t count_cuts(const struct slots *base, const struct slots *target, size_t *kept) {
    size_t j = 0;
    for (size_t i = 0; i < base->n; i++)
        j += j < target->n && base->at[i] == target->at[j];
    *kept = j;
    return base->n - j;
}

/* Estimated bytes: one for a gap, two for a slot out of order. */
static size_t cut_cost(size_t cuts, size_t appended) {
    return cuts + 2 * appended;
}

size_t edit_cost(const struct slots *base, const struct slots *target) {
    size_t kept, cuts = count_cuts(base, target, &kept);
    return cut_cost(cuts, target->n - kept);
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

bool pack_edits(struct packer *packer, const struct slots *base, const struct slots *target) {
    if (slots_equal(base, target)) {
        pack_byte(packer, EDIT_SAME);
        return true;
    }
    size_t kept, cuts = count_cuts(base, target, &kept);
    if (cut_cost(cuts, target->n - kept) < target->n) {
        pack_byte(packer, EDIT_CUT);
        pack_cuts(packer, base, target, cuts);
        pack_slots(packer, target->at + kept, target->n - kept);
    } else {
        pack_byte(packer, EDIT_ALL);
        pack_slots(packer, target->at, target->n);
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
        last = (int64_t)((uint64_t)last + (uint64_t)unpack_signed(unpacker) + 1);
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
    case EDIT_ALL:
        unpack_slots(unpacker, target);
        return false;
    default:
        unpacker->bad = true;
        return false;
    }
}
