/* Lists of tokens by request: drafts, which are new each time, and all tokens, which grow. */
#include "delta.h"

#include <stdlib.h>
#include <string.h>

/* The keys as edits of the counted order. UNFIT if one of them has no row. */
static enum fit put_known_keys(struct step *step, PyObject *dict, const struct slots *base,
                               struct slots *slots) {
    Py_ssize_t position = 0, i = 0;
    PyObject *key, *value;
    if (!slots_resize(slots, (size_t)PyDict_GET_SIZE(dict)))
        return out_of_memory();
    while (PyDict_Next(dict, &position, &key, &value)) {
        if (!PyUnicode_CheckExact(key) || !PyList_CheckExact(value))
            return UNFIT;
        int64_t slot = rows_find(step->rows, key);
        if (slot < 0)
            return slot == -2 ? FAILED : UNFIT;
        slots->at[i++] = (uint32_t)slot;
    }
    pack_edits(&step->out, base, slots);
    return FITS;
}

static const struct slots *tokens_base(const struct step *step) {
    return step->has_counts ? &step->counted : &step->keys;
}

static enum fit put_each(struct step *step, PyObject *dict, struct slots *slots,
                         enum fit put(struct step *, PyObject *, struct slots *)) {
    enum fit fit = put_known_keys(step, dict, tokens_base(step), slots);
    if (fit == FITS) {
        PyObject *lists = PyDict_Values(dict);
        bool same = lists && (size_t)PyList_GET_SIZE(lists) == slots->n;
        fit = same ? put(step, lists, slots) : lists ? was_changed() : FAILED;
        Py_XDECREF(lists);
    }
    slots_free(slots);
    return fit;
}

static enum fit put_token_lists(struct step *step, PyObject *lists, struct slots *slots) {
    (void)slots;
    return put_lists(step, lists);
}

enum fit put_tokens(struct step *step, PyObject *value) {
    struct slots slots = {0};
    if (!PyDict_CheckExact(value) || PyDict_GET_SIZE(value) == 0)
        return UNFIT;
    return put_each(step, value, &slots, put_token_lists);
}

/* How much of a list the row has, and the rest of it behind the ints read so far. */
static enum fit read_tail(struct step *step, PyObject *list, const struct tokens *held,
                          size_t *shared, size_t *end) {
    if (!PyList_CheckExact(list))
        return UNFIT;
    Py_ssize_t n = PyList_GET_SIZE(list), i = 0;
    int64_t token;
    for (; i < n && (size_t)i < held->n; i++) {
        if (!int_of(PyList_GET_ITEM(list, i), &token))
            return UNFIT;
        if (token != held->at[i])
            break;
    }
    *shared = (size_t)i;
    if (!ints_reserve(&step->actual, *end + (size_t)(n - i)))
        return FAILED;
    for (; i < n; i++) {
        if (!int_of(PyList_GET_ITEM(list, i), &token) || token != (int32_t)token)
            return UNFIT;
        step->actual.at[(*end)++] = token;
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

/* step->predicted has two ints a row: how many of its tokens stay, and how many follow them. */
static enum fit put_tail_lists(struct step *step, PyObject *lists, struct slots *slots) {
    size_t n = slots->n, end = 0, taken = 0;
    if (!ints_reserve(&step->predicted, 2 * n))
        return FAILED;
    int64_t *dropped = step->predicted.at, *added = dropped + n;
    for (size_t i = 0; i < n; i++) {
        const struct tokens *held = &step->rows->tokens[slots->at[i]];
        size_t shared, before = end;
        enum fit fit = read_tail(step, PyList_GET_ITEM(lists, (Py_ssize_t)i), held, &shared, &end);
        if (fit != FITS)
            return fit;
        dropped[i] = (int64_t)(held->n - shared);
        added[i] = (int64_t)(end - before);
    }
    pack_ints(&step->out, dropped, n);
    pack_ints(&step->out, added, n);
    pack_varint(&step->out, end);
    pack_ints(&step->out, step->actual.at, end);
    for (size_t i = 0; i < n; i++) {
        struct tokens *held = &step->rows->tokens[slots->at[i]];
        if (!replace_tail(held, held->n - (size_t)dropped[i], step->actual.at + taken,
                          (size_t)added[i]))
            return FAILED;
        taken += (size_t)added[i];
    }
    return FITS;
}

enum fit put_tails(struct step *step, PyObject *value) {
    struct slots slots = {0};
    if (!PyDict_CheckExact(value) || PyDict_GET_SIZE(value) == 0)
        return UNFIT;
    return put_each(step, value, &slots, put_tail_lists);
}

static bool get_known_keys(struct step *step, struct slots *slots) {
    unpack_edits(&step->in, tokens_base(step), slots);
    if (!step->in.bad && !rows_alive(step->rows, slots))
        step->in.bad = true;
    return !step->in.bad;
}

PyObject *get_tokens(struct step *step) {
    struct slots slots = {0};
    PyObject *dict = NULL, *lists = NULL;
    if (get_known_keys(step, &slots) && (lists = get_lists(step)))
        dict = PyDict_New();
    if (lists && (size_t)PyList_GET_SIZE(lists) != slots.n)
        step->in.bad = true;
    for (size_t i = 0; dict && !step->in.bad && i < slots.n; i++)
        if (PyDict_SetItem(dict, step->rows->keys[slots.at[i]],
                           PyList_GET_ITEM(lists, (Py_ssize_t)i)) != 0)
            Py_CLEAR(dict);
    Py_XDECREF(lists);
    slots_free(&slots);
    return dict;
}

static PyObject *token_list(struct module_state *module, const struct tokens *tokens) {
    PyObject *list = PyList_New((Py_ssize_t)tokens->n);
    for (size_t i = 0; list && i < tokens->n; i++) {
        PyObject *token = int_object(module, tokens->at[i]);
        if (!token)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, (Py_ssize_t)i, token);
    }
    return list;
}

static bool read_tails(struct step *step, const struct slots *slots) {
    size_t n = slots->n;
    if (!ints_reserve(&step->predicted, 2 * n))
        return false;
    unpack_ints(&step->in, step->predicted.at, n);
    unpack_ints(&step->in, step->predicted.at + n, n);
    size_t end = unpack_length(&step->in), taken = 0;
    if (!ints_reserve(&step->actual, end))
        return false;
    unpack_ints(&step->in, step->actual.at, end);
    for (size_t i = 0; i < n && !step->in.bad; i++) {
        struct tokens *held = &step->rows->tokens[slots->at[i]];
        uint64_t dropped = (uint64_t)step->predicted.at[i],
                 added = (uint64_t)step->predicted.at[n + i];
        if (dropped > held->n || added > end - taken) {
            step->in.bad = true;
            return false;
        }
        if (!replace_tail(held, held->n - dropped, step->actual.at + taken, added))
            return false;
        taken += added;
    }
    return !step->in.bad;
}

PyObject *get_tails(struct step *step) {
    struct slots slots = {0};
    PyObject *dict = NULL;
    if (get_known_keys(step, &slots) && read_tails(step, &slots))
        dict = PyDict_New();
    for (size_t i = 0; dict && i < slots.n; i++) {
        PyObject *list = token_list(step->module, &step->rows->tokens[slots.at[i]]);
        if (!list || PyDict_SetItem(dict, step->rows->keys[slots.at[i]], list) != 0)
            Py_CLEAR(dict);
        Py_XDECREF(list);
    }
    slots_free(&slots);
    return dict;
}
