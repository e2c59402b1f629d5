/* Lists of small numbers, sent as edits of another list. */
#ifndef MPSPMD_PACKING_EDITS_H
#define MPSPMD_PACKING_EDITS_H

#include "packing/bytes.h"

/* Slots: small numbers that stand for what both ends hold. */
struct slots {
    uint32_t *at;
    size_t n, capacity;
};

bool slots_resize(struct slots *slots, size_t n); /* false: no memory, and nothing has changed */
bool slots_copy(struct slots *to, const struct slots *from);
void slots_free(struct slots *slots);

/* Packs how to make `target` from `base`: keep it, cut some out and append others, or replace all,
 * whichever is smallest. True when they are the same. */
size_t edit_cost(const struct slots *base, const struct slots *target); /* bytes, about */
bool pack_edits(struct packer *packer, const struct slots *base, const struct slots *target);
/* `target` must not be `base`. */
bool unpack_edits(struct unpacker *unpacker, const struct slots *base, struct slots *target);

#endif
