/* The kinds of fields, and the code for each. */
#ifndef MPSPMD_DELTA_FIELDS_H
#define MPSPMD_DELTA_FIELDS_H

#include "delta/message.h"

/* How a field is sent; the module has the same names as constants. */
enum field_kind {
    FIELD_PLAIN,   /* a code for None, a bool, a number, a str, an empty container, a list or set of
                      ints; else cold */
    FIELD_RECORD,  /* a record with a plan of its own */
    FIELD_MEMBER,  /* one of a few objects that both ends have */
    FIELD_RECORDS, /* list of records with one plan */
    FIELD_KEYS,    /* list of row keys: edits of an order that both ends remember */
    FIELD_COUNTS,  /* dict from row key to int: predicted to stay */
    FIELD_PROGRESS, /* list of ints along KEYS: predicted to grow by the row's last count */
    FIELD_TREND,    /* list of ints along KEYS: predicted to grow as it did last time */
    FIELD_SUM,      /* int: predicted to be the sum of COUNTS */
    FIELD_GROUPS,   /* list along KEYS of None, or a tuple of lists of ints: mostly None */
    FIELD_GROUP,    /* tuple of lists of ints */
    FIELD_LISTS,    /* list of lists of ints */
    FIELD_TAILS,    /* dict from row key to a list of ints that grows at its end */
    FIELD_TOKENS,   /* dict from row key to list of ints */
    FIELD_KEY,      /* a key that has a row by now */
    FIELD_KEYSET,   /* set of keys */
    FIELD_FINISHED, /* set of keys whose rows end; before all other fields with keys */
    FIELD_ORDER,    /* a reply's list of keys: edits of an earlier reply's */
    FIELD_INDEX,    /* a reply's dict from key to its place in ORDER */
    N_FIELD_KINDS,
};

extern const char *const fields_names[N_FIELD_KINDS];
extern const struct codec *const fields_codecs[N_FIELD_KINDS]; /* NULL: record.c knows how */

#endif
