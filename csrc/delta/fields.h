/* The kinds of fields, and the functions for each. */
#ifndef MPSPMD_DELTA_FIELDS_H
#define MPSPMD_DELTA_FIELDS_H

#include "delta/message.h"

/* How a field is sent; the module has the same names as constants. */
enum field_kind {
    FIELD_PLAIN,    /* any value, as plain.h says */
    FIELD_RECORD,   /* a record with a plan of its own */
    FIELD_MEMBER,   /* one of a few objects that both ends have */
    FIELD_RECORDS,  /* list of records with one plan */
    FIELD_KEYS,     /* list of row keys: edits of an order that both ends remember */
    FIELD_COUNTS,   /* dict from row key to int: predicted to stay */
    FIELD_PROGRESS, /* list of ints along KEYS: predicted to grow by the row's last count */
    FIELD_TREND,    /* list of ints along KEYS: predicted to grow as it did last time */
    FIELD_GROUPS,   /* list along KEYS of None, or a tuple of lists of ints: mostly None */
    FIELD_GROUP,    /* tuple of lists of ints */
    FIELD_LISTS,    /* list of lists of ints */
    FIELD_TAILS,    /* dict from row key to a list of ints that grows at its end */
    FIELD_TOKENS,   /* dict from row key to list of ints */
    FIELD_KEY,      /* a key that has a row already */
    FIELD_KEYSET,   /* set of keys */
    FIELD_FINISHED, /* set of keys whose rows end; before all other fields with keys */
    FIELD_ORDER,    /* a reply's list of keys: edits of an earlier reply's */
    FIELD_INDEX,    /* a reply's dict from key to its place in ORDER */
    N_FIELD_KINDS,
};

enum fit {
    FITS,
    UNFIT, /* nothing was changed: send it some other way */
    FAILED /* an exception is set */
};

/* Kinds that are alike share functions. Reading returns NULL with an exception set, or with
 * message->in.bad. */
typedef enum fit put_function(struct message *message, PyObject *value, enum field_kind kind);
typedef PyObject *get_function(struct message *message, enum field_kind kind);

put_function keys_put, keys_put_one, keysets_put, counts_put, columns_put;
put_function groups_put, groups_put_one, lists_put, tokens_put, order_put, order_put_index;
get_function keys_get, keys_get_one, keysets_get, counts_get, columns_get;
get_function groups_get, groups_get_one, lists_get, tokens_get, order_get, order_get_index;

struct codec {
    const char *name;  /* the module's constant */
    put_function *put; /* NULL: record.c writes and reads this kind */
    get_function *get;
};

extern const struct codec fields_codecs[N_FIELD_KINDS];

/* Finds the slots of the keys in `list`, most of which follow each other as in `order`. Gives rows
 * to unknown keys and writes those first: their lengths + 1, then a 0. */
enum fit keys_put_unknown(struct message *message, PyObject *list, const struct slots *order,
                          struct slots *slots);
/* Reads what keys_put_unknown() has written, and makes the rows. */
bool keys_get_unknown(struct message *message);

#endif
