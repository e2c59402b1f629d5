#include "delta/fields.h"

#include "delta/columns.h"
#include "delta/counts.h"
#include "delta/groups.h"
#include "delta/keys.h"
#include "delta/keysets.h"
#include "delta/lists.h"
#include "delta/order.h"
#include "delta/tokens.h"

const char *const fields_names[N_FIELD_KINDS] = {
    [FIELD_PLAIN] = "FIELD_PLAIN",       [FIELD_RECORD] = "FIELD_RECORD",
    [FIELD_RECORDS] = "FIELD_RECORDS",   [FIELD_GROUP] = "FIELD_GROUP",
    [FIELD_KEYS] = "FIELD_KEYS",         [FIELD_COUNTS] = "FIELD_COUNTS",
    [FIELD_PROGRESS] = "FIELD_PROGRESS", [FIELD_TREND] = "FIELD_TREND",
    [FIELD_SUM] = "FIELD_SUM",           [FIELD_GROUPS] = "FIELD_GROUPS",
    [FIELD_LISTS] = "FIELD_LISTS",       [FIELD_TAILS] = "FIELD_TAILS",
    [FIELD_TOKENS] = "FIELD_TOKENS",     [FIELD_KEYSET] = "FIELD_KEYSET",
    [FIELD_KEY] = "FIELD_KEY",           [FIELD_MEMBER] = "FIELD_MEMBER",
    [FIELD_FINISHED] = "FIELD_FINISHED", [FIELD_ORDER] = "FIELD_ORDER",
    [FIELD_INDEX] = "FIELD_INDEX",
};

const struct codec *const fields_codecs[N_FIELD_KINDS] = {
    [FIELD_KEYS] = &keys_codec,
    [FIELD_KEY] = &keys_codec_one,
    [FIELD_KEYSET] = &keysets_codec,
    [FIELD_FINISHED] = &keysets_codec_finished,
    [FIELD_COUNTS] = &counts_codec,
    [FIELD_SUM] = &counts_codec_sum,
    [FIELD_PROGRESS] = &columns_codec_progress,
    [FIELD_TREND] = &columns_codec_trend,
    [FIELD_GROUPS] = &groups_codec,
    [FIELD_GROUP] = &groups_codec_one,
    [FIELD_LISTS] = &lists_codec,
    [FIELD_TAILS] = &tokens_codec_tails,
    [FIELD_TOKENS] = &tokens_codec,
    [FIELD_ORDER] = &order_codec,
    [FIELD_INDEX] = &order_codec_index,
};
