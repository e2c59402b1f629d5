/* Reading the fields of a request: the mirror image of py_put.c. What is handed out is nobody
 * else's. */
#include "delta.h"

#include <string.h>

_Static_assert(sizeof(long) == sizeof(int64_t), "PyLong_FromLong() makes ints of 64 bits");

static PyObject *bad(struct step *step) {
    step->in.bad = true;
    return NULL;
}

/* Rows for the keys that come now, as put_unknown() has made them. */
static bool get_unknown(struct step *step) {
    size_t length;
    while ((length = unpack_length(&step->in)) > 0) {
        PyObject *key = get_text(step, length - 1);
        int64_t slot = key ? rows_add(step->rows, key) : -1;
        Py_XDECREF(key);
        if (slot < 0)
            return false;
    }
    return !step->in.bad;
}

static PyObject *get_keys(struct step *step) {
    struct rows *rows = step->rows;
    if (!get_unknown(step))
        return NULL;
    uint64_t place = unpack_varint(&step->in);
    if (step->in.bad || place >= N_ORDERS)
        return bad(step);
    struct order *order = rows->orders[place];
    bool same = unpack_edits(&step->in, &order->slots, &step->keys);
    step->keys_place = same ? (int)place : -1;
    bool known = same && order->keys;
    if (step->in.bad || (!known && !rows_alive(rows, &step->keys)))
        return bad(step);
    if (!same)
        return rows_keys(rows, &step->keys);
    if (!order->keys && !(order->keys = rows_keys(rows, &order->slots)))
        return NULL;
    return give_list(&order->given_keys, order->keys);
}

/* A column of which all is as predicted: each of its rows goes on by its step. */
static PyObject *get_predicted(struct step *step, enum column column, const int64_t *steps) {
    int64_t *last = step->rows->columns[column];
    const uint32_t *slots = step->keys.at;
    Py_ssize_t n = (Py_ssize_t)step->keys.n;
    struct module_state *module = step->module;
    PyObject *const *shared = module->ints; /* may be NULL */
    uint64_t digest = 0;
    PyObject *list = PyList_New(n), *number = list;
    for (Py_ssize_t i = 0; i < n && number; i++) {
        uint32_t slot = slots[i];
        int64_t value = next_value(last, steps, slot);
        last[slot] = value;
        digest += digest_cell(slot, value);
        /* As int_object() does it, whose table is looked up once. */
        if (shared && (uint64_t)value < N_SHARED_INTS && shared[value])
            number = Py_NewRef(shared[value]);
        else
            number = int_object(module, value);
        PyList_SET_ITEM(list, i, number);
    }
    if (!number)
        Py_CLEAR(list);
    step->digest += digest_column(column, digest);
    return list;
}

static PyObject *get_column(struct step *step, enum column column, enum column step_column) {
    size_t n = step->keys.n;
    if (is_known_order(step) && step->in.at < step->in.end && *step->in.at == 0) {
        step->in.at++;
        return get_predicted(step, column, step->rows->columns[step_column]);
    }
    if (!ints_reserve(&step->actual, n))
        return NULL;
    predict(step, step->actual.at, column, step_column);
    unpack_changes(&step->in, step->actual.at, n);
    if (step->in.bad)
        return NULL;
    take_changes(step, column);
    return int_list(step->module, step->actual.at, n);
}

static PyObject *get_progress(struct step *step) {
    return get_column(step, COLUMN_PROGRESS, COLUMN_COUNT);
}

static PyObject *get_trend(struct step *step) {
    return get_column(step, COLUMN_TREND, COLUMN_TREND_STEP);
}

static PyObject *counts_of(struct step *step) {
    PyObject *dict = PyDict_New();
    for (size_t i = 0; dict && i < step->counted.n; i++) {
        PyObject *count = int_object(step->module, step->actual.at[i]);
        if (!count || PyDict_SetItem(dict, step->rows->keys[step->counted.at[i]], count) != 0)
            Py_CLEAR(dict);
        Py_XDECREF(count);
    }
    return dict;
}

static PyObject *get_counts(struct step *step) {
    struct rows *rows = step->rows;
    if (!get_unknown(step))
        return NULL;
    bool same = unpack_edits(&step->in, counts_base(step), &step->counted);
    /* An order whose rows have ended since, by a plan that says so in between, has no keys. */
    int place = same ? counts_place(step) : -1;
    bool known = place >= 0 && rows->orders[place]->keys;
    if (step->in.bad || (!known && !rows_alive(rows, &step->counted)))
        return bad(step);
    size_t n = step->counted.n;
    if (!ints_reserve(&step->actual, n))
        return NULL;
    last_counts(step, step->actual.at);
    bool changed = unpack_changes(&step->in, step->actual.at, n) > 0;
    struct order *order = step->in.bad ? NULL : finish_counts(step, same, changed);
    if (!order)
        return NULL;
    if (!order->counts)
        order->counts = counts_of(step);
    return order->counts ? give_dict(&order->given_counts, order->counts) : NULL;
}

static PyObject *get_sum(struct step *step) {
    int64_t off = unpack_signed(&step->in);
    return PyLong_FromLongLong((int64_t)((uint64_t)step->total + (uint64_t)off));
}

static PyObject *get_id(struct step *step, int64_t *last) {
    *last = (int64_t)((uint64_t)*last + (uint64_t)unpack_signed(&step->in));
    return PyLong_FromLong(*last); /* seldom the same: a new int lies in warmer memory */
}

static PyObject *get_only_int(struct step *step, int64_t *last, size_t *looks) {
    PyObject *list = list_of_one(step->module, get_id(step, last), looks);
    PyObject *lists = list ? PyTuple_Pack(1, list) : NULL;
    Py_XDECREF(list);
    return lists;
}

static PyObject *get_lists_of(struct step *step, int64_t *last) {
    size_t n_lists = unpack_length(&step->in);
    if (n_lists > (size_t)(step->in.end - step->in.at))
        return bad(step);
    PyObject *lists = PyTuple_New((Py_ssize_t)n_lists);
    for (size_t i = 0; lists && i < n_lists; i++) {
        size_t n = unpack_length(&step->in);
        PyObject *list = NULL;
        if (n <= (size_t)(step->in.end - step->in.at))
            list = PyList_New((Py_ssize_t)n);
        for (size_t j = 0; list && j < n; j++) {
            PyObject *id = get_id(step, last);
            if (!id) {
                Py_CLEAR(list);
                break;
            }
            PyList_SET_ITEM(list, (Py_ssize_t)j, id);
        }
        if (!list) {
            step->in.bad = true;
            Py_CLEAR(lists);
            break;
        }
        PyTuple_SET_ITEM(lists, (Py_ssize_t)i, list);
    }
    return lists;
}

/* [None] * n, which is quicker than setting each. */
static PyObject *nones(size_t n) {
    PyObject *one = PyList_New(1), *list = NULL;
    if (one) {
        PyList_SET_ITEM(one, 0, Py_NewRef(Py_None));
        list = PySequence_Repeat(one, (Py_ssize_t)n);
        Py_DECREF(one);
    }
    return list;
}

static PyObject *get_groups(struct step *step) {
    size_t n = step->keys.n, next = 0, looks = 2 * n;
    uint64_t code;
    int64_t last = 0;
    PyObject *list = nones(n);
    while (list && (code = unpack_varint(&step->in)) > 0) {
        uint64_t gap = code >> 1;
        PyObject *lists = NULL;
        if (gap > 0 && gap <= n - next)
            lists = code & 1 ? get_lists_of(step, &last) : get_only_int(step, &last, &looks);
        next += (size_t)gap;
        if (!lists) {
            step->in.bad = true;
            Py_CLEAR(list);
        } else {
            PyList_SetItem(list, (Py_ssize_t)next - 1, lists);
        }
    }
    return list;
}

static PyObject *get_group(struct step *step) {
    int64_t last = 0;
    return get_lists_of(step, &last);
}

/* The row's own object: replies that name it are compared with the rows' sooner. */
static PyObject *get_key(struct step *step) {
    uint64_t slot = unpack_varint(&step->in);
    if (slot >= step->rows->n_slots || !step->rows->keys[slot])
        return bad(step);
    return Py_NewRef(step->rows->keys[slot]);
}

static PyObject *get_key_set(struct step *step, struct slots *known) {
    size_t n = unpack_length(&step->in);
    PyObject *set = PySet_New(NULL);
    for (; set && n > 0; n--) {
        uint64_t reference = unpack_varint(&step->in);
        PyObject *key = NULL;
        if (reference == 0) {
            key = get_text(step, unpack_length(&step->in));
        } else if (reference <= step->rows->n_slots && step->rows->keys[reference - 1] &&
                   slots_resize(known, known->n + 1)) {
            known->at[known->n - 1] = (uint32_t)(reference - 1);
            key = Py_NewRef(step->rows->keys[reference - 1]);
        }
        if (!key || PySet_Add(set, key) != 0) {
            step->in.bad = true;
            Py_CLEAR(set);
        }
        Py_XDECREF(key);
    }
    return set;
}

static PyObject *get_keyset(struct step *step) {
    struct slots known = {0};
    PyObject *set = get_key_set(step, &known);
    slots_free(&known);
    return set;
}

static PyObject *get_finished(struct step *step) {
    struct slots known = {0};
    PyObject *set = get_key_set(step, &known);
    for (size_t i = 0; set && i < known.n; i++)
        if (!rows_end(step->rows, known.at[i]))
            Py_CLEAR(set);
    slots_free(&known);
    return set;
}

get_function *const get_functions[N_FIELD_KINDS] = {
    [FIELD_KEYS] = get_keys,     [FIELD_COUNTS] = get_counts,     [FIELD_PROGRESS] = get_progress,
    [FIELD_TREND] = get_trend,   [FIELD_SUM] = get_sum,           [FIELD_GROUPS] = get_groups,
    [FIELD_LISTS] = get_lists,   [FIELD_TAILS] = get_tails,       [FIELD_TOKENS] = get_tokens,
    [FIELD_KEYSET] = get_keyset, [FIELD_GROUP] = get_group,       [FIELD_ORDER] = get_order,
    [FIELD_INDEX] = get_index,   [FIELD_FINISHED] = get_finished, [FIELD_KEY] = get_key,
};
