/* A request's keys: as edits of an order of before. And single keys that have a row. */
#ifndef MPSPMD_DELTA_KEYS_H
#define MPSPMD_DELTA_KEYS_H

#include "delta/message.h"

extern const struct codec keys_codec, keys_codec_one;

/* The slots of keys, most of which follow each other as in `order`. Unknown ones get rows, and are
 * written first: their lengths + 1, then a 0. */
enum fit keys_put_unknown(struct message *message, PyObject *list, const struct slots *order,
                          struct slots *slots);
/* Rows for the keys that come now, as keys_put_unknown() has made them. */
bool keys_get_unknown(struct message *message);

#endif
