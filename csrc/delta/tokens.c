#include "delta/tokens.h"

#include <stdlib.h>

#include "delta/lists.h"

/* The keys as edits of the counted order. UNFIT if one of them has no row. */
static enum fit put_known_keys(struct message *message, PyObject *dict, const struct slots *base,
                               struct slots *slots) {
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
    pack_edits(&message->out, base, slots);
    return FITS;
}

static const struct slots *tokens_base(const struct message *message) {
    return message->has_counts ? &message->counted : &message->keys;
}

static enum fit put_each(struct message *message, PyObject *dict, struct slots *slots,
                         enum fit put(struct message *, PyObject *, struct slots *)) {
    enum fit fit = put_known_keys(message, dict, tokens_base(message), slots);
    if (fit == FITS) {
        PyObject *lists = PyDict_Values(dict);
        bool same = lists && (size_t)PyList_GET_SIZE(lists) == slots->n;
        if (lists && !same)
            message_raise_changed();
        fit = same ? put(message, lists, slots) : FAILED;
        Py_XDECREF(lists);
    }
    slots_free(slots);
    return fit;
}

static enum fit put_token_lists(struct message *message, PyObject *lists, struct slots *slots) {
    (void)slots;
    return lists_put(message, lists);
}

static enum fit put_tokens(struct message *message, PyObject *value) {
    struct slots slots = {0};
    if (!PyDict_CheckExact(value) || PyDict_GET_SIZE(value) == 0)
        return UNFIT;
    return put_each(message, value, &slots, put_token_lists);
}

/* How much of a list the row has, and the rest of it behind the ints read so far. */
static enum fit read_tail(struct message *message, PyObject *list, const struct tokens *held,
                          size_t *shared, size_t *end) {
    if (!PyList_CheckExact(list))
        return UNFIT;
    Py_ssize_t n = PyList_GET_SIZE(list), i = 0;
    int64_t token;
    for (; i < n && (size_t)i < held->n; i++) {
        if (!number_of(PyList_GET_ITEM(list, i), &token))
            return UNFIT;
        if (token != held->at[i])
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

static bool replace_tail(struct tokens *tokens, size_t shared, const int64_t *tail, size_t n) {
    if (shared + n > tokens->capacity) {
        size_t capacity = shared + n < 64 ? 64 : (shared + n) + (shared + n) / 2;
        int32_t *at = realloc(tokens->at, capacity * sizeof *at);
        if (!at) {
            PyErr_NoMemory();
            return false;
        }
        tokens->at = at;
        tokens->capacity = capacity;
    }
    for (size_t i = 0; i < n; i++)
        tokens->at[shared + i] = (int32_t)tail[i];
    tokens->n = shared + n;
    return true;
}

/* message->scratch.predicted has two ints a row: how many of its tokens stay, and how many follow
 * them. */
static enum fit put_tail_lists(struct message *message, PyObject *lists, struct slots *slots) {
    size_t n = slots->n, end = 0, taken = 0;
    if (!numbers_reserve(&message->scratch.predicted, 2 * n))
        return FAILED;
    int64_t *dropped = message->scratch.predicted.at, *added = dropped + n;
    for (size_t i = 0; i < n; i++) {
        const struct tokens *held = &message->rows->tokens[slots->at[i]];
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
    for (size_t i = 0; i < n; i++) {
        struct tokens *held = &message->rows->tokens[slots->at[i]];
        if (!replace_tail(held, held->n - (size_t)dropped[i], message->scratch.actual.at + taken,
                          (size_t)added[i]))
            return FAILED;
        taken += (size_t)added[i];
    }
    return FITS;
}

static enum fit put_tails(struct message *message, PyObject *value) {
    struct slots slots = {0};
    if (!PyDict_CheckExact(value) || PyDict_GET_SIZE(value) == 0)
        return UNFIT;
    return put_each(message, value, &slots, put_tail_lists);
}

static bool get_known_keys(struct message *message, struct slots *slots) {
    unpack_edits(&message->in, tokens_base(message), slots);
    if (!message->in.bad && !rows_alive(message->rows, slots))
        message->in.bad = true;
    return !message->in.bad;
}

static PyObject *get_tokens(struct message *message) {
    struct slots slots = {0};
    PyObject *dict = NULL, *lists = NULL;
    if (get_known_keys(message, &slots) && (lists = lists_get(message)))
        dict = PyDict_New();
    if (lists && (size_t)PyList_GET_SIZE(lists) != slots.n)
        message->in.bad = true;
    for (size_t i = 0; dict && !message->in.bad && i < slots.n; i++)
        if (PyDict_SetItem(dict, message->rows->keys[slots.at[i]],
                           PyList_GET_ITEM(lists, (Py_ssize_t)i)) != 0)
            Py_CLEAR(dict);
    Py_XDECREF(lists);
    slots_free(&slots);
    return dict;
}

static PyObject *token_list(struct shared_ints *ints, const struct tokens *tokens) {
    PyObject *list = PyList_New((Py_ssize_t)tokens->n);
    for (size_t i = 0; list && i < tokens->n; i++) {
        PyObject *token = number_object(ints, tokens->at[i]);
        if (!token)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, (Py_ssize_t)i, token);
    }
    return list;
}

static bool read_tails(struct message *message, const struct slots *slots) {
    size_t n = slots->n;
    if (!numbers_reserve(&message->scratch.predicted, 2 * n))
        return false;
    unpack_ints(&message->in, message->scratch.predicted.at, n);
    unpack_ints(&message->in, message->scratch.predicted.at + n, n);
    size_t end = unpack_length(&message->in), taken = 0;
    if (!numbers_reserve(&message->scratch.actual, end))
        return false;
    unpack_ints(&message->in, message->scratch.actual.at, end);
    for (size_t i = 0; i < n && !message->in.bad; i++) {
        struct tokens *held = &message->rows->tokens[slots->at[i]];
        uint64_t dropped = (uint64_t)message->scratch.predicted.at[i],
                 added = (uint64_t)message->scratch.predicted.at[n + i];
        if (dropped > held->n || added > end - taken) {
            message->in.bad = true;
            return false;
        }
        if (!replace_tail(held, held->n - dropped, message->scratch.actual.at + taken, added))
            return false;
        taken += added;
    }
    return !message->in.bad;
}

static PyObject *get_tails(struct message *message) {
    struct slots slots = {0};
    PyObject *dict = NULL;
    if (get_known_keys(message, &slots) && read_tails(message, &slots))
        dict = PyDict_New();
    for (size_t i = 0; dict && i < slots.n; i++) {
        PyObject *list = token_list(&message->module->ints, &message->rows->tokens[slots.at[i]]);
        if (!list || PyDict_SetItem(dict, message->rows->keys[slots.at[i]], list) != 0)
            Py_CLEAR(dict);
        Py_XDECREF(list);
    }
    slots_free(&slots);
    return dict;
}

const struct codec tokens_codec = {put_tokens, get_tokens},
                   tokens_codec_tails = {put_tails, get_tails};
