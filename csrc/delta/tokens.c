/* Lists of tokens by request: drafts, which are new each time (TOKENS), and all tokens, which grow
 * (TAILS). */
#include "delta/fields.h"

/* The dict's keys are edits of these. */
static const struct slots *tokens_base(const struct message *message) {
    return message->has_counts ? &message->counted : &message->keys;
}

/* UNFIT if a key has no row. */
static enum fit put_known_keys(struct message *message, PyObject *dict, struct slots *slots) {
    Py_ssize_t position = 0, i = 0;
    PyObject *key, *value;
    if (!rows_resize_slots(slots, (size_t)PyDict_GET_SIZE(dict)))
        return FAILED;
    while (PyDict_Next(dict, &position, &key, &value)) {
        if (!PyUnicode_CheckExact(key) || !PyList_CheckExact(value))
            return UNFIT;
        int64_t slot = rows_find(message->rows, key);
        if (slot < 0)
            return slot == -2 ? FAILED : UNFIT;
        slots->at[i++] = (uint32_t)slot;
    }
    pack_edits(&message->out, tokens_base(message), slots);
    return FITS;
}

/* Counts the tokens that the row has already, and adds the rest to message->scratch.actual. */
static enum fit read_tail(struct message *message, PyObject *list, const struct slots *held,
                          size_t *shared, size_t *end) {
    if (!PyList_CheckExact(list))
        return UNFIT;
    Py_ssize_t n = PyList_GET_SIZE(list), i = 0;
    int64_t token;
    for (; i < n && (size_t)i < held->n; i++) {
        if (!number_of(PyList_GET_ITEM(list, i), &token))
            return UNFIT;
        if (token != (int32_t)held->at[i])
            break;
    }
    *shared = (size_t)i;
    if (!numbers_reserve(&message->scratch.actual, *end + (size_t)(n - i)))
        return FAILED;
    for (; i < n; i++) {
        if (!number_of(PyList_GET_ITEM(list, i), &token) || token != (int32_t)token)
            return UNFIT;
        message->scratch.actual.at[(*end)++] = token;
    }
    return FITS;
}

/* Replaces the rows' tails. message->scratch.predicted has two ints a row: how many of its tokens
 * end, and how many new ones follow; these are the first `left` of message->scratch.actual. */
static bool replace_tails(struct message *message, const struct slots *slots, size_t left) {
    const int64_t *counts = message->scratch.predicted.at, *tail = message->scratch.actual.at;
    for (size_t i = 0; i < slots->n; i++) {
        struct slots *held = &message->rows->tokens[slots->at[i]];
        uint64_t dropped = (uint64_t)counts[i], added = (uint64_t)counts[slots->n + i];
        if (dropped > held->n || added > left) {
            message->in.bad = true;
            return false;
        }
        size_t shared = held->n - dropped;
        if (!rows_resize_slots(held, shared + added))
            return false;
        for (size_t j = 0; j < added; j++)
            held->at[shared + j] = (uint32_t)tail[j];
        tail += added;
        left -= added;
    }
    return true;
}

static enum fit put_tails(struct message *message, PyObject *lists, const struct slots *slots) {
    size_t n = slots->n, end = 0;
    if (!numbers_reserve(&message->scratch.predicted, 2 * n))
        return FAILED;
    int64_t *dropped = message->scratch.predicted.at, *added = dropped + n;
    for (size_t i = 0; i < n; i++) {
        const struct slots *held = &message->rows->tokens[slots->at[i]];
        size_t shared, before = end;
        enum fit fit =
            read_tail(message, PyList_GET_ITEM(lists, (Py_ssize_t)i), held, &shared, &end);
        if (fit != FITS)
            return fit;
        dropped[i] = (int64_t)(held->n - shared);
        added[i] = (int64_t)(end - before);
    }
    pack_ints(&message->out, dropped, n);
    pack_ints(&message->out, added, n);
    pack_varint(&message->out, end);
    pack_ints(&message->out, message->scratch.actual.at, end);
    return replace_tails(message, slots, end) ? FITS : FAILED;
}

enum fit tokens_put(struct message *message, PyObject *value, enum field_kind kind) {
    struct slots *slots = &message->scratch.slots;
    if (!PyDict_CheckExact(value) || PyDict_GET_SIZE(value) == 0)
        return UNFIT;
    enum fit fit = put_known_keys(message, value, slots);
    if (fit != FITS)
        return fit;
    PyObject *lists = PyDict_Values(value);
    if (!lists)
        return FAILED;
    if ((size_t)PyList_GET_SIZE(lists) != slots->n) {
        message_raise_changed();
        fit = FAILED;
    } else if (kind == FIELD_TAILS) {
        fit = put_tails(message, lists, slots);
    } else {
        fit = lists_put(message, lists, kind);
    }
    Py_DECREF(lists);
    return fit;
}

static bool get_known_keys(struct message *message, struct slots *slots) {
    unpack_edits(&message->in, tokens_base(message), slots);
    if (!message->in.bad && !rows_alive(message->rows, slots))
        message->in.bad = true;
    return !message->in.bad;
}

static bool get_tails(struct message *message, const struct slots *slots) {
    struct ints *counts = &message->scratch.predicted, *tails = &message->scratch.actual;
    if (!numbers_reserve(counts, 2 * slots->n))
        return false;
    unpack_ints(&message->in, counts->at, slots->n);
    unpack_ints(&message->in, counts->at + slots->n, slots->n);
    size_t end = unpack_length(&message->in);
    if (!numbers_reserve(tails, end))
        return false;
    unpack_ints(&message->in, tails->at, end);
    return !message->in.bad && replace_tails(message, slots, end);
}

static PyObject *list_of(struct shared_ints *ints, const struct slots *tokens) {
    PyObject *list = PyList_New((Py_ssize_t)tokens->n);
    for (size_t i = 0; list && i < tokens->n; i++)
        extension_set_item(&list, i, number_object(ints, (int32_t)tokens->at[i]));
    return list;
}

PyObject *tokens_get(struct message *message, enum field_kind kind) {
    struct slots *slots = &message->scratch.slots;
    PyObject *dict = NULL, *lists = NULL;
    if (!get_known_keys(message, slots))
        return NULL;
    if (kind == FIELD_TAILS ? get_tails(message, slots)
                            : (lists = lists_get(message, kind)) != NULL)
        dict = PyDict_New();
    if (lists && (size_t)PyList_GET_SIZE(lists) != slots->n) {
        message->in.bad = true;
        Py_CLEAR(dict);
    }
    for (size_t i = 0; dict && i < slots->n; i++) {
        uint32_t slot = slots->at[i];
        PyObject *list = lists ? Py_NewRef(PyList_GET_ITEM(lists, (Py_ssize_t)i))
                               : list_of(&message->module->ints, &message->rows->tokens[slot]);
        if (!list || PyDict_SetItem(dict, message->rows->keys[slot], list) != 0)
            Py_CLEAR(dict);
        Py_XDECREF(list);
    }
    Py_XDECREF(lists);
    return dict;
}
