#include "delta/order.h"

#include "delta/fields.h"

enum { ORDER_SAME, ORDER_EDITED };

/* The places of the base's keys. False with an exception set. */
static bool find_old_places(struct reply_base *base, struct slots *old) {
    Py_ssize_t n = PyList_GET_SIZE(base->keys);
    if (!places_make(&base->places) || !rows_resize_slots(old, (size_t)n))
        return false;
    for (Py_ssize_t i = 0; i < n; i++)
        old->at[i] = places_of(&base->places, PyList_GET_ITEM(base->keys, i));
    return true;
}

/* The places of this reply's keys. UNFIT if one of them wasn't scheduled. */
static enum fit find_new_places(const struct reply_base *base, PyObject *keys,
                                const struct slots *old, struct slots *new) {
    Py_ssize_t n = PyList_GET_SIZE(keys);
    if (!rows_resize_slots(new, (size_t)n))
        return FAILED;
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *key = PyList_GET_ITEM(keys, i);
        bool stays = (size_t)i < old->n && PyList_GET_ITEM(base->keys, i) == key;
        new->at[i] = stays ? old->at[i] : places_of(&base->places, key);
        if (new->at[i] == NO_PLACE)
            return UNFIT;
    }
    return FITS;
}

static void add_to_digest(struct reply_base *base, const struct slots *slots) {
    struct digest digest = digest_begin(base->digest);
    digest_add(&digest, slots->at, slots->n * sizeof *slots->at);
    base->digest = digest_end(&digest);
}

enum fit order_put(struct message *message, PyObject *value, enum field_kind Py_UNUSED(kind)) {
    struct reply_base *base = message->reply;
    struct slots *old = &message->scratch.from, *new = &message->scratch.to;
    if (!PyList_CheckExact(value) || PyList_GET_SIZE(value) == 0)
        return UNFIT;
    if (rows_same_items(value, base->keys)) {
        pack_byte(&message->out, ORDER_SAME);
        base->new_keys = Py_NewRef(base->keys);
        base->has_order = true;
        return FITS;
    }
    enum fit fit = find_old_places(base, old) ? find_new_places(base, value, old, new) : FAILED;
    if (fit != FITS)
        return fit;
    pack_byte(&message->out, ORDER_EDITED);
    pack_edits(&message->out, old, new);
    add_to_digest(base, new);
    base->new_keys = PyList_GetSlice(value, 0, PyList_GET_SIZE(value));
    base->has_order = base->changed = true;
    return base->new_keys ? FITS : FAILED;
}

/* The keys at the places that edits lead to. */
static PyObject *get_edited_keys(struct message *message) {
    struct reply_base *base = message->reply;
    struct slots *old = &message->scratch.from, *new = &message->scratch.to;
    if (!find_old_places(base, old))
        return NULL;
    PyObject *scheduled = base->places.scheduled;
    unpack_edits(&message->in, old, new);
    for (size_t i = 0; !message->in.bad && i < new->n; i++)
        message->in.bad = (Py_ssize_t)new->at[i] >= PyList_GET_SIZE(scheduled);
    if (message->in.bad)
        return NULL;
    add_to_digest(base, new);
    PyObject *keys = PyList_New((Py_ssize_t)new->n);
    for (size_t i = 0; keys && i < new->n; i++)
        PyList_SET_ITEM(keys, (Py_ssize_t)i,
                        Py_NewRef(PyList_GET_ITEM(scheduled, (Py_ssize_t)new->at[i])));
    return keys;
}

PyObject *order_get(struct message *message, enum field_kind Py_UNUSED(kind)) {
    struct reply_base *base = message->reply;
    base->changed = unpack_byte(&message->in) != ORDER_SAME;
    base->new_keys = base->changed ? get_edited_keys(message) : Py_NewRef(base->keys);
    base->has_order = base->new_keys != NULL;
    if (!base->has_order)
        return NULL;
    return PyList_GetSlice(base->new_keys, 0, PyList_GET_SIZE(base->new_keys));
}

static bool is_same_key(PyObject *a, PyObject *b) {
    return a == b ||
           (PyUnicode_CheckExact(a) && PyUnicode_CheckExact(b) && PyUnicode_Compare(a, b) == 0);
}

static const struct slots *base_indices(const struct reply_base *base) {
    static const struct slots none;
    return base->order ? &base->order->indices : &none;
}

/* Reads the dict's values in its order. These describe the dict if each is the place of its key in
 * this reply's keys; UNFIT if not. */
static enum fit read_indices(struct reply_base *base, PyObject *dict) {
    Py_ssize_t position = 0, n = PyList_GET_SIZE(base->new_keys);
    struct slots *indices = &base->new_indices;
    PyObject *key, *value;
    int64_t at;
    if (PyDict_GET_SIZE(dict) != n)
        return UNFIT;
    if (!rows_resize_slots(indices, (size_t)n))
        return FAILED;
    for (size_t i = 0; PyDict_Next(dict, &position, &key, &value); i++) {
        if (!number_of(value, &at) || at < 0 || at >= n ||
            !is_same_key(PyList_GET_ITEM(base->new_keys, (Py_ssize_t)at), key))
            return UNFIT;
        indices->at[i] = (uint32_t)at;
    }
    return FITS;
}

enum fit order_put_index(struct message *message, PyObject *value,
                         enum field_kind Py_UNUSED(kind)) {
    struct reply_base *base = message->reply;
    if (!PyDict_CheckExact(value) || PyDict_GET_SIZE(value) == 0 || !base->has_order)
        return UNFIT;
    enum fit fit = read_indices(base, value);
    if (fit != FITS)
        return fit;
    if (!pack_edits(&message->out, base_indices(base), &base->new_indices)) {
        add_to_digest(base, &base->new_indices);
        base->changed = true;
    }
    base->has_index = true;
    return FITS;
}

static bool set_index(struct message *message, PyObject *index, size_t at) {
    PyObject *keys = message->reply->new_keys;
    PyObject *value = at < (size_t)PyList_GET_SIZE(keys)
                          ? number_object(&message->module->ints, (int64_t)at)
                          : NULL;
    bool set = value && PyDict_SetItem(index, PyList_GET_ITEM(keys, (Py_ssize_t)at), value) == 0;
    Py_XDECREF(value);
    return set;
}

/* Turns a copy of the earlier reply's dict into the beginning of the new one: most keys stay. `n`
 * counts the new indices that it has then. */
static bool keep_begin(struct message *message, PyObject *index, size_t *n) {
    const struct reply_base *base = message->reply;
    const struct slots *indices = &base->new_indices;
    Py_ssize_t position = 0, n_keys = PyList_GET_SIZE(base->new_keys);
    PyObject *key, *value;
    while (PyDict_Next(base->order->index, &position, &key, &value)) {
        uint32_t at = *n < indices->n ? indices->at[*n] : UINT32_MAX;
        int64_t before;
        bool stays = at < n_keys && PyList_GET_ITEM(base->new_keys, (Py_ssize_t)at) == key;
        *n += stays;
        if (stays ? (!number_of(value, &before) || before != at) && !set_index(message, index, at)
                  : PyDict_DelItem(index, key) != 0)
            return false;
    }
    return true;
}

/* The dict whose values are the new indices. */
static PyObject *make_index(struct message *message) {
    struct reply_base *base = message->reply;
    PyObject *before = base->order ? base->order->index : NULL;
    PyObject *index = before ? PyDict_Copy(before) : PyDict_New();
    size_t n = 0;
    bool made = index && (!before || keep_begin(message, index, &n));
    for (; made && n < base->new_indices.n; n++)
        made = set_index(message, index, base->new_indices.at[n]);
    /* If not, an index comes twice or is missing. */
    if (made && PyDict_GET_SIZE(index) == PyList_GET_SIZE(base->new_keys))
        return index;
    message->in.bad = true;
    Py_XDECREF(index);
    return NULL;
}

PyObject *order_get_index(struct message *message, enum field_kind Py_UNUSED(kind)) {
    struct reply_base *base = message->reply;
    struct reply_order *order = base->order;
    if (!base->has_order)
        return message_bad(message);
    bool same = unpack_edits(&message->in, base_indices(base), &base->new_indices);
    if (message->in.bad)
        return NULL;
    if (!same) {
        add_to_digest(base, &base->new_indices);
        base->changed = true;
    }
    base->has_index = true;
    if (!base->changed && order && order->index)
        return PyDict_Copy(order->index);
    base->new_index = make_index(message);
    return base->new_index ? PyDict_Copy(base->new_index) : NULL;
}
