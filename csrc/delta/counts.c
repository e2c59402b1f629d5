/* How much of each request is scheduled: a dict from key to int, predicted to stay. */
#include "delta/fields.h"

/* COUNTS' keys are edits of KEYS, or of the newest order if there are no KEYS. */
static const struct slots *counts_base(const struct message *message) {
    return message->keys.n > 0 ? &message->keys : &message->rows->orders[0]->slots;
}

/* The base's place among the remembered orders, or -1. */
static int base_place(const struct message *message) {
    return message->keys.n > 0 ? message->keys_place : 0;
}

static void read_last_counts(const struct message *message, int64_t *values) {
    for (size_t i = 0; i < message->counted.n; i++)
        values[i] = message->rows->columns[COLUMN_COUNT][message->counted.at[i]];
}

static void take_counts(struct message *message, struct order *order) {
    uint64_t digest = 0;
    for (size_t i = 0; i < message->counted.n; i++) {
        int64_t count = message->scratch.actual.at[i];
        digest += rows_set(message->rows, COLUMN_COUNT, message->counted.at[i], count);
    }
    Py_CLEAR(order->counts);
    order->digest = digest;
    order->epoch = message->rows->epoch;
}

/* Takes COUNTS from message->counted and message->scratch.actual. `same`: the keys are the base's.
 * `changed`: some counts are new. */
static struct order *finish_counts(struct message *message, bool same, bool changed) {
    struct order *order =
        rows_remember(message->rows, &message->counted, same ? base_place(message) : -1);
    if (!order)
        return NULL;
    message->rows->epoch += changed;
    if (order->epoch != message->rows->epoch)
        take_counts(message, order);
    message->has_counts = true;
    message->digest += rows_digest_column(COLUMN_COUNT, order->digest);
    return order;
}

/* Reads the counts into message->scratch.actual. Returns how many of them, from the first on, have
 * the keys of `base`; `changed` says whether these counts are new. -1: not all are ints. */
static Py_ssize_t read_counts(struct message *message, PyObject *dict, const struct slots *base,
                              uint64_t *changed) {
    PyObject *key, *count, *last = NULL, *const *keys = message->rows->keys;
    const int64_t *counts = message->rows->columns[COLUMN_COUNT];
    int64_t value = 0, *actual = message->scratch.actual.at;
    const uint32_t *slots = base->at;
    size_t i = 0, n_base = base->n, n_same = 0;
    uint64_t differences = 0;
    for (Py_ssize_t position = 0; PyDict_Next(dict, &position, &key, &count); i++) {
        /* Most are the same object: the int 1. */
        if (count != last && !number_of(count, &value))
            return -1;
        last = count;
        actual[i] = value;
        if (n_same == i && i < n_base && key == keys[slots[i]]) {
            n_same++;
            differences |= (uint64_t)(counts[slots[i]] ^ value);
        }
    }
    *changed = differences;
    return (Py_ssize_t)n_same;
}

/* `n`: of how many keys the counts have been read. */
static enum fit put_counted_keys(struct message *message, PyObject *dict, Py_ssize_t n,
                                 const struct slots *base, bool same) {
    if (same) {
        pack_byte(&message->out, 0); /* no unknown keys */
        return rows_copy_slots(&message->counted, base) ? FITS : FAILED;
    }
    PyObject *keys = PyDict_Keys(dict);
    if (!keys)
        return FAILED;
    enum fit fit = keys_put_unknown(message, keys, base, &message->counted);
    if (fit == FITS && PyList_GET_SIZE(keys) != n) {
        message_raise_changed();
        fit = FAILED;
    }
    Py_DECREF(keys);
    return fit;
}

enum fit counts_put(struct message *message, PyObject *value, enum field_kind Py_UNUSED(kind)) {
    struct ints *actual = &message->scratch.actual, *predicted = &message->scratch.predicted;
    if (!PyDict_CheckExact(value) || PyDict_GET_SIZE(value) == 0)
        return UNFIT;
    Py_ssize_t n = PyDict_GET_SIZE(value);
    if (!numbers_reserve(actual, (size_t)n) || !numbers_reserve(predicted, (size_t)n))
        return FAILED;
    const struct slots *base = counts_base(message);
    uint64_t changed;
    Py_ssize_t n_same = read_counts(message, value, base, &changed);
    bool same = n_same == n && (size_t)n == base->n;
    enum fit fit = n_same < 0 ? UNFIT : put_counted_keys(message, value, n, base, same);
    if (fit != FITS) {
        message->counted.n = 0;
        return fit;
    }
    /* Asked again: other objects may be equal keys. */
    same = pack_edits(&message->out, base, &message->counted);
    if (n_same == n && !changed) {
        pack_byte(&message->out, 0);
    } else {
        read_last_counts(message, predicted->at);
        changed = pack_changes(&message->out, predicted->at, actual->at, message->counted.n) > 0;
    }
    return finish_counts(message, same, changed) ? FITS : FAILED;
}

static PyObject *counts_of(struct message *message) {
    PyObject *dict = PyDict_New();
    for (size_t i = 0; dict && i < message->counted.n; i++) {
        PyObject *count = number_object(&message->module->ints, message->scratch.actual.at[i]);
        if (!count || PyDict_SetItem(dict, message->rows->keys[message->counted.at[i]], count) != 0)
            Py_CLEAR(dict);
        Py_XDECREF(count);
    }
    return dict;
}

PyObject *counts_get(struct message *message, enum field_kind Py_UNUSED(kind)) {
    struct rows *rows = message->rows;
    int64_t *actual;
    if (!keys_get_unknown(message))
        return NULL;
    bool same = unpack_edits(&message->in, counts_base(message), &message->counted);
    /* An order has no keys if a plan ends its rows in between. */
    int place = same ? base_place(message) : -1;
    bool known = place >= 0 && rows->orders[place]->keys;
    if (message->in.bad || (!known && !rows_alive(rows, &message->counted)))
        return message_bad(message);
    if (!numbers_reserve(&message->scratch.actual, message->counted.n))
        return NULL;
    actual = message->scratch.actual.at;
    read_last_counts(message, actual);
    bool changed = unpack_changes(&message->in, actual, message->counted.n) > 0;
    struct order *order = message->in.bad ? NULL : finish_counts(message, same, changed);
    if (!order)
        return NULL;
    if (!order->counts)
        order->counts = counts_of(message);
    return order->counts ? PyDict_Copy(order->counts) : NULL;
}
