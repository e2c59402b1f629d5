/* Writing the fields of a request: each against what both ends know of its rows. A value of another
 * shape or of other types than expected is left to the plain way: nothing is changed by then. */
#include "delta.h"

#include <string.h>

/* Each row goes on by its step for as long as the list says so: for how many it does. */
static size_t follow(const struct step *step, PyObject *list, int64_t *last, const int64_t *steps,
                     uint64_t *digest) {
    const uint32_t *slots = step->keys.at;
    size_t i = 0, n = step->keys.n;
    int64_t number;
    for (; i < n; i++) {
        uint32_t slot = slots[i];
        int64_t value = next_value(last, steps, slot);
        if (!int_of(PyList_GET_ITEM(list, (Py_ssize_t)i), &number) || number != value)
            break;
        last[slot] = value;
        *digest += digest_cell(slot, value);
    }
    return i;
}

/* All of a column as predicted, in one go: the encoder's innermost loop. If it is not, nothing has
 * changed. */
static bool put_predicted(struct step *step, PyObject *list, enum column column,
                          const int64_t *steps) {
    int64_t *last = step->rows->columns[column];
    uint64_t digest = 0;
    size_t followed = follow(step, list, last, steps, &digest);
    if (followed < step->keys.n) {
        while (followed-- > 0) {
            uint32_t slot = step->keys.at[followed];
            last[slot] = (int64_t)((uint64_t)last[slot] - (uint64_t)steps[slot]);
        }
        return false;
    }
    pack_byte(&step->out, 0);
    step->digest += digest_column(column, digest);
    return true;
}

static enum fit put_column(struct step *step, PyObject *value, enum column column,
                           enum column step_column) {
    size_t n = step->keys.n;
    if (!PyList_CheckExact(value) || (size_t)PyList_GET_SIZE(value) != n || n == 0)
        return UNFIT;
    if (is_known_order(step) &&
        put_predicted(step, value, column, step->rows->columns[step_column]))
        return FITS;
    if (!ints_reserve(&step->actual, n) || !ints_reserve(&step->predicted, n))
        return FAILED;
    if (!ints_of(value, step->actual.at, (Py_ssize_t)n))
        return UNFIT;
    predict(step, step->predicted.at, column, step_column);
    pack_changes(&step->out, step->predicted.at, step->actual.at, n);
    take_changes(step, column);
    return FITS;
}

static enum fit put_progress(struct step *step, PyObject *value) {
    return put_column(step, value, COLUMN_PROGRESS, COLUMN_COUNT);
}

static enum fit put_trend(struct step *step, PyObject *value) {
    return put_column(step, value, COLUMN_TREND, COLUMN_TREND_STEP);
}

/* The counts into step->actual. How many of them, from the first on, have the keys of `base`;
 * `changed` says whether their counts differ from what they were. -1: not all are ints. */
static Py_ssize_t read_counts(struct step *step, PyObject *dict, const struct slots *base,
                              uint64_t *changed) {
    PyObject *key, *count, *last = NULL, *const *keys = step->rows->keys;
    const int64_t *counts = step->rows->columns[COLUMN_COUNT];
    int64_t value = 0, *actual = step->actual.at;
    const uint32_t *slots = base->at;
    size_t i = 0, n_base = base->n, n_same = 0;
    uint64_t differences = 0;
    for (Py_ssize_t position = 0; PyDict_Next(dict, &position, &key, &count); i++) {
        /* Most are the same object: the int 1. */
        if (count != last && !int_of(count, &value))
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
static enum fit put_counted_keys(struct step *step, PyObject *dict, Py_ssize_t n,
                                 const struct slots *base, bool same) {
    if (same) {
        pack_byte(&step->out, 0);
        return slots_copy(&step->counted, base) ? FITS : out_of_memory();
    }
    PyObject *keys = PyDict_Keys(dict);
    if (!keys)
        return FAILED;
    enum fit fit = put_unknown(step, keys, base, &step->counted);
    if (fit == FITS && PyList_GET_SIZE(keys) != n)
        fit = was_changed();
    Py_DECREF(keys);
    return fit;
}

static enum fit put_counts(struct step *step, PyObject *value) {
    if (!PyDict_CheckExact(value) || PyDict_GET_SIZE(value) == 0)
        return UNFIT;
    Py_ssize_t n = PyDict_GET_SIZE(value);
    if (!ints_reserve(&step->actual, (size_t)n) || !ints_reserve(&step->predicted, (size_t)n))
        return FAILED;
    const struct slots *base = counts_base(step);
    uint64_t changed;
    Py_ssize_t n_same = read_counts(step, value, base, &changed);
    bool same = n_same == n && (size_t)n == base->n;
    enum fit fit = n_same < 0 ? UNFIT : put_counted_keys(step, value, n, base, same);
    if (fit != FITS) {
        step->counted.n = 0;
        return fit;
    }
    /* Other objects may be equal keys. */
    same = pack_edits(&step->out, base, &step->counted);
    if (n_same == n && !changed) {
        pack_byte(&step->out, 0);
    } else {
        last_counts(step, step->predicted.at);
        changed =
            pack_changes(&step->out, step->predicted.at, step->actual.at, step->counted.n) > 0;
    }
    return finish_counts(step, same, changed) ? FITS : FAILED;
}

static enum fit put_sum(struct step *step, PyObject *value) {
    int64_t sum;
    if (!int_of(value, &sum))
        return UNFIT;
    pack_signed(&step->out, (int64_t)((uint64_t)sum - (uint64_t)step->total));
    return FITS;
}

/* Blocks that are handed out together tend to be neighbours. */
static enum fit put_id(struct packer *out, PyObject *number, int64_t *last) {
    int64_t id;
    if (!int_of(number, &id))
        return UNFIT;
    pack_signed(out, (int64_t)((uint64_t)id - (uint64_t)*last));
    *last = id;
    return FITS;
}

static enum fit put_lists_of(struct packer *out, PyObject *lists, int64_t *last) {
    if (!PyTuple_CheckExact(lists))
        return UNFIT;
    Py_ssize_t n_lists = PyTuple_GET_SIZE(lists);
    pack_varint(out, (uint64_t)n_lists);
    for (Py_ssize_t i = 0; i < n_lists; i++) {
        PyObject *list = PyTuple_GET_ITEM(lists, i);
        if (!PyList_CheckExact(list))
            return UNFIT;
        Py_ssize_t n = PyList_GET_SIZE(list);
        pack_varint(out, (uint64_t)n);
        for (Py_ssize_t j = 0; j < n; j++)
            if (put_id(out, PyList_GET_ITEM(list, j), last) != FITS)
                return UNFIT;
    }
    return FITS;
}

/* A tuple of one list of one int: what most requests get, if they get anything. */
static PyObject *only_int(PyObject *lists) {
    if (!PyTuple_CheckExact(lists) || PyTuple_GET_SIZE(lists) != 1)
        return NULL;
    PyObject *list = PyTuple_GET_ITEM(lists, 0);
    return PyList_CheckExact(list) && PyList_GET_SIZE(list) == 1 ? PyList_GET_ITEM(list, 0) : NULL;
}

static enum fit put_groups(struct step *step, PyObject *value) {
    Py_ssize_t n = (Py_ssize_t)step->keys.n, next = 0;
    if (!PyList_CheckExact(value) || PyList_GET_SIZE(value) != n || n == 0)
        return UNFIT;
    PyObject *const none = Py_None;
    int64_t last = 0;
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *lists = PyList_GET_ITEM(value, i);
        if (lists == none)
            continue;
        PyObject *only = only_int(lists);
        /* A gap + 1, so that 0 ends them; the lowest bit says whether it is more than one int. */
        pack_varint(&step->out, ((uint64_t)(i - next) + 1) << 1 | !only);
        if ((only ? put_id(&step->out, only, &last) : put_lists_of(&step->out, lists, &last)) !=
            FITS)
            return UNFIT;
        next = i + 1;
    }
    pack_byte(&step->out, 0);
    return FITS;
}

static enum fit put_group(struct step *step, PyObject *value) {
    int64_t last = 0;
    return put_lists_of(&step->out, value, &last);
}

put_function *const put_functions[N_FIELD_KINDS] = {
    [FIELD_KEYS] = put_keys,     [FIELD_COUNTS] = put_counts,     [FIELD_PROGRESS] = put_progress,
    [FIELD_TREND] = put_trend,   [FIELD_SUM] = put_sum,           [FIELD_GROUPS] = put_groups,
    [FIELD_LISTS] = put_lists,   [FIELD_TAILS] = put_tails,       [FIELD_TOKENS] = put_tokens,
    [FIELD_KEYSET] = put_keyset, [FIELD_GROUP] = put_group,       [FIELD_ORDER] = put_order,
    [FIELD_INDEX] = put_index,   [FIELD_FINISHED] = put_finished, [FIELD_KEY] = put_key,
};
