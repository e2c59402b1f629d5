#include "delta/fields.h"

#define CODEC(kind, put, get) [kind] = {#kind, put, get}

const struct codec fields_codecs[N_FIELD_KINDS] = {
    CODEC(FIELD_PLAIN, NULL, NULL),
    CODEC(FIELD_RECORD, NULL, NULL),
    CODEC(FIELD_MEMBER, NULL, NULL),
    CODEC(FIELD_RECORDS, NULL, NULL),
    CODEC(FIELD_KEYS, keys_put, keys_get),
    CODEC(FIELD_COUNTS, counts_put, counts_get),
    CODEC(FIELD_PROGRESS, columns_put, columns_get),
    CODEC(FIELD_TREND, columns_put, columns_get),
    CODEC(FIELD_GROUPS, groups_put, groups_get),
    CODEC(FIELD_GROUP, groups_put_one, groups_get_one),
    CODEC(FIELD_LISTS, lists_put, lists_get),
    CODEC(FIELD_TAILS, tokens_put, tokens_get),
    CODEC(FIELD_TOKENS, tokens_put, tokens_get),
    CODEC(FIELD_KEY, keys_put_one, keys_get_one),
    CODEC(FIELD_KEYSET, keysets_put, keysets_get),
    CODEC(FIELD_FINISHED, keysets_put, keysets_get),
    CODEC(FIELD_ORDER, order_put, order_get),
    CODEC(FIELD_INDEX, order_put_index, order_get_index),
};
