/* Writing a request's keys: as edits of an order of before, as rows that end, as members of sets.
 */
#include "delta.h"

/* A key's slot as rows_find() has it. Most keys follow each other as in an order of before: those
 * are found without asking the dict. `next` is where this one may be in there. */
static int64_t find_next(const struct rows *rows, const struct slots *order, size_t *next,
                         PyObject *key) {
    enum { SKIPPED = 8 }; /* so many rows may be left out at a time */
    size_t i = *next;
    while (i < order->n && !rows->keys[order->at[i]])
        i++; /* it has ended */
    *next = i;
    if (i < order->n && rows->keys[order->at[i]] == key) {
        *next = i + 1;
        return order->at[i];
    }
    int64_t slot = rows_find(rows, key);
    for (size_t end = i + SKIPPED; slot >= 0 && i < order->n && i < end; i++)
        if (order->at[i] == slot) {
            *next = i + 1;
            break;
        }
    return slot;
}

/* The slots of keys, most of which follow each other as in `order`. Unknown ones get rows, and are
 * written first: their lengths + 1, then a 0. */
enum fit put_unknown(struct step *step, PyObject *list, const struct slots *order,
                     struct slots *slots) {
    Py_ssize_t n = PyList_GET_SIZE(list), length;
    const char *text;
    size_t next = 0;
    if (!slots_resize(slots, (size_t)n))
        return out_of_memory();
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *key = PyList_GET_ITEM(list, i);
        if (!PyUnicode_CheckExact(key))
            return UNFIT;
        int64_t slot = find_next(step->rows, order, &next, key);
        if (slot == -2)
            return FAILED;
        if (slot == -1 && !text_of(key, &length))
            return UNFIT;
        slots->at[i] = slot < 0 ? UINT32_MAX : (uint32_t)slot;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        if (slots->at[i] != UINT32_MAX)
            continue;
        PyObject *key = PyList_GET_ITEM(list, i);
        int64_t slot = rows_find(step->rows, key); /* it may have come twice */
        if (slot == -1) {
            slot = rows_add(step->rows, key);
            text = text_of(key, &length);
            pack_varint(&step->out, (uint64_t)length + 1);
            pack_bytes(&step->out, text, (size_t)length);
        }
        if (slot < 0)
            return FAILED;
        slots->at[i] = (uint32_t)slot;
    }
    pack_byte(&step->out, 0);
    return FITS;
}

/* The order of before whose first row that hasn't ended is the first key's, or the newest. */
static const struct slots *likely_order(const struct rows *rows, PyObject *list) {
    for (int place = 0; place < N_ORDERS; place++) {
        const struct slots *slots = &rows->orders[place]->slots;
        size_t i = 0;
        while (i < slots->n && !rows->keys[slots->at[i]])
            i++;
        if (i < slots->n && rows->keys[slots->at[i]] == PyList_GET_ITEM(list, 0))
            return slots;
    }
    return &rows->orders[0]->slots;
}

static int nearest_order(const struct rows *rows, const struct slots *slots) {
    int nearest = 0;
    size_t least = SIZE_MAX;
    for (int i = 0; i < N_ORDERS; i++) {
        size_t cost = edit_cost(&rows->orders[i]->slots, slots);
        if (cost < least) {
            least = cost;
            nearest = i;
        }
    }
    return nearest;
}

static bool are_texts(PyObject *list) {
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++)
        if (!PyUnicode_CheckExact(PyList_GET_ITEM(list, i)))
            return false;
    return true;
}

/* -1: with an exception set. */
static int same_keys(PyObject *list, PyObject *keys) {
    if (same_items(list, keys))
        return 1;
    /* What isn't a str may be equal to one, and do anything when it is asked. */
    if (PyList_GET_SIZE(list) != PyList_GET_SIZE(keys) || !are_texts(list))
        return 0;
    return PyObject_RichCompareBool(list, keys, Py_EQ);
}

/* The same keys as in one of the last steps: step->keys_place says which one. */
static enum fit find_order(struct step *step, PyObject *list) {
    for (int place = 0; place < N_ORDERS; place++) {
        const struct order *order = step->rows->orders[place];
        if (!order->keys)
            continue;
        int same = same_keys(list, order->keys);
        if (same < 0)
            return FAILED;
        step->keys_place = place;
        if (same)
            return slots_copy(&step->keys, &order->slots) ? FITS : out_of_memory();
    }
    return UNFIT;
}

enum fit put_keys(struct step *step, PyObject *value) {
    if (!PyList_CheckExact(value) || PyList_GET_SIZE(value) == 0)
        return UNFIT;
    struct rows *rows = step->rows;
    enum fit found = find_order(step, value);
    if (found == FITS) {
        pack_byte(&step->out, 0); /* no new keys */
    } else if (found == UNFIT) {
        found = put_unknown(step, value, likely_order(rows, value), &step->keys);
        if (found == FITS)
            step->keys_place = nearest_order(rows, &step->keys);
    }
    if (found != FITS) {
        step->keys.n = 0;
        return found;
    }
    pack_varint(&step->out, (uint64_t)step->keys_place);
    if (!pack_edits(&step->out, &rows->orders[step->keys_place]->slots, &step->keys))
        step->keys_place = -1;
    return FITS;
}

enum fit put_key(struct step *step, PyObject *value) {
    int64_t slot = PyUnicode_CheckExact(value) ? rows_find(step->rows, value) : -1;
    if (slot < 0)
        return slot == -1 ? UNFIT : FAILED;
    pack_varint(&step->out, (uint64_t)slot);
    return FITS;
}

static enum fit put_key_set(struct step *step, PyObject *value, struct slots *known) {
    if (!PySet_CheckExact(value) || PySet_GET_SIZE(value) == 0)
        return UNFIT;
    PyObject *iterator = PyObject_GetIter(value), *key;
    enum fit fit = iterator ? FITS : FAILED;
    pack_varint(&step->out, (uint64_t)PySet_GET_SIZE(value));
    while (fit == FITS && (key = PyIter_Next(iterator))) {
        const char *text = NULL;
        Py_ssize_t length;
        int64_t slot = PyUnicode_CheckExact(key) ? rows_find(step->rows, key) : -3;
        if (slot == -2 || (slot >= 0 && !slots_resize(known, known->n + 1))) {
            fit = slot == -2 ? FAILED : out_of_memory();
        } else if (slot >= 0) {
            pack_varint(&step->out, (uint64_t)slot + 1);
            known->at[known->n - 1] = (uint32_t)slot;
        } else if (slot == -1 && (text = text_of(key, &length))) {
            pack_byte(&step->out, 0);
            pack_varint(&step->out, (uint64_t)length);
            pack_bytes(&step->out, text, (size_t)length);
        } else {
            fit = UNFIT;
        }
        Py_DECREF(key);
    }
    Py_XDECREF(iterator);
    return PyErr_Occurred() ? FAILED : fit;
}

enum fit put_keyset(struct step *step, PyObject *value) {
    struct slots known = {0};
    enum fit fit = put_key_set(step, value, &known);
    slots_free(&known);
    return fit;
}

enum fit put_finished(struct step *step, PyObject *value) {
    struct slots known = {0};
    enum fit fit = put_key_set(step, value, &known);
    for (size_t i = 0; fit == FITS && i < known.n; i++)
        if (!rows_end(step->rows, known.at[i]))
            fit = FAILED;
    slots_free(&known);
    return fit;
}
