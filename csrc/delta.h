/* What the files of the delta codec share: the rows that both ends keep, and a message under way.
 *
 * A message is   u64 check, u32 end of the hot part, u32 sequence, u8 flags,
 *                varint note, varint label's length, label, the record's fields,
 *                padding to 16, the cold part
 * Of each field there is a code, and what the code says. Cold is what has no compact form: one
 * message of the object codec, of all such values in a list. */
#ifndef MPSPMD_DELTA_H
#define MPSPMD_DELTA_H

#include "module.h"

#include "digest.h"
#include "intlist.h"

#include <string.h>

/* How a field is sent; `_native` has the same names as constants. */
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

enum { N_ORDERS = 4 }; /* as many batches may take turns before orders are sent anew */

enum column { COLUMN_COUNT, COLUMN_PROGRESS, COLUMN_TREND, COLUMN_TREND_STEP, N_COLUMNS };

/* The last copy of a list or dict that was handed out. */
struct given {
    PyObject *object;
    uint64_t version; /* a dict's: as it was then */
};

/* An order of rows that was scheduled; with what was decoded for it, to be copied. */
struct order {
    struct slots slots;
    PyObject *keys;   /* list, never handed out; NULL: to be made when it is needed */
    PyObject *counts; /* the same for the decoder's dict */
    struct given given_keys, given_counts;
    uint64_t
        epoch;     /* counts, total and digest are right while no count has changed since; 0: not */
    int64_t total; /* of all counts, */
    uint64_t digest; /* and of them and their slots */
};

struct tokens {
    int32_t *at;
    size_t n, capacity;
};

/* The requests that both ends know. A row's slot stays its own until the row ends. */
struct rows {
    PyObject *slot_of; /* dict: key -> slot */
    PyObject **keys;   /* by slot; NULL: free */
    int64_t *columns[N_COLUMNS];
    struct tokens *tokens;
    size_t n_slots, capacity;
    struct slots free;
    struct order *orders[N_ORDERS]; /* the newest first */
    uint64_t epoch;                 /* how many messages have changed any count */
};

bool rows_open(struct rows *rows);
void rows_close(struct rows *rows);
bool rows_reset(struct rows *rows);
/* A row's slot, -1 if there is none, -2 with an exception set. */
int64_t rows_find(const struct rows *rows, PyObject *key);
/* -1 with an exception set. */
int64_t rows_add(struct rows *rows, PyObject *key);
bool rows_end(struct rows *rows, uint32_t slot);
bool rows_alive(const struct rows *rows, const struct slots *slots);
PyObject *rows_keys(const struct rows *rows, const struct slots *slots); /* a new list */
/* The order becomes the newest; `place` is its place among the others, or -1 for a new one. */
struct order *rows_remember(struct rows *rows, const struct slots *slots, int place);

struct ints {
    int64_t *at;
    size_t capacity;
};

bool ints_reserve(struct ints *ints, size_t n); /* false with an exception set */
/* A row's part in the digest of the state, which is a sum of these: they may be computed in any
 * order, and none waits for another. The product's halves are mixed, so that a part isn't linear in
 * the value nor in the slot: drifts of several rows would cancel in a sum of such parts. */
static inline uint64_t digest_cell(uint32_t slot, int64_t value) {
    __extension__ unsigned __int128 product =
        (unsigned __int128)((uint64_t)value ^ UINT64_C(0xA0761D6478BD642F)) *
        (slot ^ UINT64_C(0xE7037ED1A0B428DB));
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* and a column's, from its cells'. */
static inline uint64_t digest_column(enum column column, uint64_t cells) {
    return digest_word(cells, column);
}

struct plan_object {
    PyObject_HEAD PyTypeObject *type;
    newfunc make;
    PyObject *nothing;   /* () */
    PyObject *blank;     /* dict: every field's name -> None, in order */
    PyObject *known;     /* frozenset: names of attributes that are fields, or follow from fields */
    PyObject *dict_name; /* "__dict__" */
    bool has_dict;       /* its instances do, */
    bool in_dict;        /* and all fields are in there: none is a slot or a property */
    uint32_t kinds;      /* a bit for each that is used, in records within too */
    Py_ssize_t n_fields;
    struct field {
        PyObject *name;
        enum field_kind kind;
        struct plan_object *record;
        PyObject *members; /* tuple */
    } *fields;
};

/* What a reply has said about its order, as Python keeps it. */
struct reply_order {
    PyObject_HEAD PyObject *keys; /* list */
    PyObject *index;              /* dict, on the end that reads */
    struct slots indices;         /* for each of its keys, where in `keys` it is */
    uint64_t digest;
    struct given given_keys, given_index;
};

/* What a reply is written and read against, and what it says about its own order. A key's place is
 * where it stands in `scheduled`. */
struct reply_base {
    PyObject *scheduled;       /* list: keys of the request that is answered */
    struct reply_order *order; /* an earlier reply's, or NULL */
    PyObject *keys;            /* its own; without an order `scheduled` */
    PyObject *own;   /* `scheduled` is this copy of the caller's, once it is looked at or kept */
    uint32_t *homes; /* once places are asked for, a table of them by their keys' hashes, */
    size_t mask;     /* whose size is this + 1 */
    struct slots old_places, new_places; /* of `keys` and `new_keys`, once they are asked for */
    PyObject *new_keys, *new_index;      /* what this reply says, */
    struct slots new_indices;
    bool has_order, has_index, changed; /* whether it does, and something else than the base */
    uint64_t digest;                    /* of all that both ends have made of it */
};

/* One message being written or read. */
struct step {
    struct module_state *module;
    struct rows *rows;        /* NULL in a reply, */
    struct reply_base *reply; /* NULL in a request */
    struct packer out;
    struct unpacker in;
    PyObject *cold; /* list; when reading, NULL if it couldn't be rebuilt */
    Py_ssize_t next_cold;
    struct slots keys; /* of KEYS, */
    int keys_place;    /* their place among the remembered orders, or -1 */
    /* Of COUNTS. In a reply: places of the base's index's keys, and of its own. */
    struct slots counted;
    bool has_counts;
    int64_t total;
    uint64_t digest; /* of what this message has made of the rows */
    struct ints actual, predicted;
};

void step_free(struct step *step);

/* From now on `scheduled` is nobody else's: somebody's code, called between two fields or later,
 * may change the caller's. */
bool own_scheduled(struct reply_base *base);

/* What the counted rows' counts were. */
void last_counts(const struct step *step, int64_t *values);
/* KEYS are a remembered order, which was a dict's: no key comes twice, and a column that is as
 * predicted may be read and written in one go. */
static inline bool is_known_order(const struct step *step) {
    return step->keys_place >= 0;
}
/* What a row's value is predicted to be. */
static inline int64_t next_value(const int64_t *last, const int64_t *steps, uint32_t slot) {
    return (int64_t)((uint64_t)last[slot] + (uint64_t)steps[slot]);
}
/* A column's predicted values. */
void predict(const struct step *step, int64_t *values, enum column column, enum column step_column);
/* A column's new values, in step->actual. */
void take_changes(struct step *step, enum column column);
/* COUNTS' keys are edits of KEYS, or if there are none, of the newest order. Its place among the
 * remembered ones, or -1. */
int counts_place(const struct step *step);
const struct slots *counts_base(const struct step *step);
/* COUNTS are in step->counted and step->actual. `same`: their keys are the base's. `changed`: not
 * all of them are what they were. */
struct order *finish_counts(struct step *step, bool same, bool changed);

enum fit {
    FITS,
    UNFIT, /* nothing was changed: send it some other way */
    FAILED /* an exception is set */
};

typedef enum fit put_function(struct step *step, PyObject *value);
/* NULL: with an exception set, or with step->in.bad. */
typedef PyObject *get_function(struct step *step);

extern put_function *const put_functions[N_FIELD_KINDS];
extern get_function *const get_functions[N_FIELD_KINDS];

put_function put_order, put_index, put_lists, put_tails, put_tokens;
put_function put_keys, put_key, put_keyset, put_finished;
enum fit put_unknown(struct step *step, PyObject *list, const struct slots *order,
                     struct slots *slots);
get_function get_order, get_index, get_lists, get_tails, get_tokens;

/* A list of one int, which it steals; NULL if that is NULL. After so many looks for one that nobody
 * has any more, it is a new one: a thousand new ones a step take longer to make than the rest of a
 * reply, and wake the garbage collector. */
PyObject *list_of_one(struct module_state *module, PyObject *number, size_t *looks);
/* A copy, or if the last one has come back as it was, that. */
PyObject *give_list(struct given *given, PyObject *list);
PyObject *give_dict(struct given *given, PyObject *dict);

enum { N_SHARED_INTS = 1 << 15 };

/* An int object. Small ones are made once and shared: the same ones are needed in each step. */
PyObject *make_shared_int(struct module_state *module, int64_t value);
static inline PyObject *int_object(struct module_state *module, int64_t value) {
    if ((uint64_t)value >= N_SHARED_INTS)
        return PyLong_FromLongLong(value);
    PyObject *shared = module->ints ? module->ints[value] : NULL;
    return shared ? Py_NewRef(shared) : make_shared_int(module, value);
}

/* After PyLong_AsSsize_t() has returned -1: false for a number of more than 64 bits. */
static inline bool is_minus_one(void) {
    if (!PyErr_Occurred())
        return true;
    PyErr_Clear();
    return false;
}

/* A small int's value lies in one digit, and is read without a call. */
static inline bool small_int_of(PyObject *object, int64_t *value) {
    const PyLongObject *number = (const PyLongObject *)object;
#if PY_VERSION_HEX >= 0x030C0000
    if (!PyUnstable_Long_IsCompact(number))
        return false;
    *value = PyUnstable_Long_CompactValue(number);
#else
    Py_ssize_t sign = Py_SIZE(object);
    if (sign < -1 || sign > 1)
        return false;
    *value = sign * (int64_t)number->ob_digit[0];
#endif
    return true;
}

/* An exact int of up to 64 bits; bools and numpy's ints are other types. */
static inline bool int_of(PyObject *object, int64_t *value) {
    if (!PyLong_CheckExact(object))
        return false;
    if (small_int_of(object, value))
        return true;
    *value = PyLong_AsSsize_t(object);
    return *value != -1 || is_minus_one();
}

/* False: not all of them are ints of up to 64 bits. */
static inline bool ints_of(PyObject *list, int64_t *values, Py_ssize_t n) {
    for (Py_ssize_t i = 0; i < n; i++)
        if (!int_of(PyList_GET_ITEM(list, i), &values[i]))
            return false;
    return true;
}

/* Two lists of the very same objects: they are equal, whatever the objects are. */
static inline bool same_items(PyObject *a, PyObject *b) {
    Py_ssize_t n = PyList_GET_SIZE(a);
    return n == PyList_GET_SIZE(b) &&
           (n == 0 || memcmp(PySequence_Fast_ITEMS(a), PySequence_Fast_ITEMS(b),
                             (size_t)n * sizeof(PyObject *)) == 0);
}

PyObject *int_list(struct module_state *module, const int64_t *values, size_t n);
enum fit out_of_memory(void);
/* FAILED: somebody's code, called on the way, has changed a container. */
enum fit was_changed(void);
bool check_plan(const struct plan_object *plan, bool is_reply); /* false with an exception set */
/* NULL, without an exception, if it isn't UTF-8. */
const char *text_of(PyObject *text, Py_ssize_t *length);
PyObject *get_text(struct step *step, size_t length);

/* What a field begins with. */
enum code {
    CODE_NONE,
    CODE_FALSE,
    CODE_TRUE,
    CODE_INT,
    CODE_LIST, /* these four are empty */
    CODE_DICT,
    CODE_SET,
    CODE_TUPLE,
    CODE_TEXT,
    CODE_INTS, /* a list of ints */
    CODE_COLD,
    CODE_KIND, /* as the field's kind says */
    CODE_FLOAT,
    CODE_INT_SET,
};

bool put_plain(struct step *step, PyObject *value);
bool put_cold(struct step *step, PyObject *value);
PyObject *get_plain(struct step *step, uint8_t code);

bool put_record(struct step *step, const struct plan_object *plan, PyObject *record);
PyObject *get_record(struct step *step, const struct plan_object *plan);

/* Whole messages: the head, the cold part and the check around the fields. */
enum message_flags { MESSAGE_KEY = 1, MESSAGE_COLD = 2, MESSAGE_BUFFERS = 4, MESSAGE_EXTRA = 8 };
enum { HEAD_BYTES = 17, HEAD_CHECKED = 8 };

void put_head(struct step *step);
/* bytes, or a list of parts; `check` gets what the next message builds on. Steals nothing. */
PyObject *put_end(struct step *step, uint32_t sequence, uint8_t flags, PyObject *dumps,
                  uint64_t seed, uint64_t *check);

struct head {
    uint64_t check;
    uint32_t hot_end, sequence;
    uint8_t flags;
};

/* False with CodecDesync set when the message isn't one. */
bool get_head(struct step *step, const Py_buffer *message, struct head *head);
uint64_t check_of(const Py_buffer *message, uint64_t seed);
/* The cold values into step->cold. False with `loads`'s exception set. */
bool get_cold(struct step *step, PyObject *payload, const struct head *head, PyObject *loads);
bool raise_desync(struct module_state *module, const char *format, ...);
/* After fields that couldn't be read. Whatever has come of it (a key that isn't UTF-8, a place that
 * isn't there, no room for edits) is a desync to the caller; a MemoryError stays what it is. */
bool raise_unreadable(struct module_state *module, const char *format, ...);

#endif
