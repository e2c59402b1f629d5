#include "delta/order.h"

#include "delta/fields.h"

/* What most keys are as in: the earlier reply, or the request. */
enum like { LIKE_ALL_OF_BEFORE, LIKE_BEFORE, LIKE_SCHEDULED };

enum { COMPARISONS = 16 }; /* for each scheduled key; more take longer than to send the keys */

/* Runs no code of theirs. A str keeps its hash. */
static bool are_equal_texts(PyObject *a, PyObject *b) {
    return PyUnicode_CheckExact(a) && PyUnicode_CheckExact(b) &&
           PyObject_Hash(a) == PyObject_Hash(b) && PyUnicode_Compare(a, b) == 0;
}

/* Nearly all keys are the same object, which needs no call. */
static inline bool is_same_key(PyObject *a, PyObject *b) {
    return a == b || are_equal_texts(a, b);
}

static size_t count_differences(PyObject *keys, PyObject *like) {
    Py_ssize_t n = PyList_GET_SIZE(keys), n_like = PyList_GET_SIZE(like);
    size_t differences = 0;
    for (Py_ssize_t i = 0; i < n; i++)
        differences +=
            i >= n_like || !is_same_key(PyList_GET_ITEM(keys, i), PyList_GET_ITEM(like, i));
    return differences;
}

/* Where a key stands in `list`, -1 if it wasn't found. Begins at `*next`, because keys that have
 * moved mostly follow each other. */
static Py_ssize_t find_place(PyObject *list, PyObject *key, Py_ssize_t *next, Py_ssize_t *left) {
    Py_ssize_t n = PyList_GET_SIZE(list), at = *next;
    for (Py_ssize_t i = 0; i < n && *left > 0; i++, at++, --*left) {
        at = at < n ? at : 0;
        if (is_same_key(PyList_GET_ITEM(list, at), key)) {
            *next = at + 1;
            return at;
        }
    }
    return -1;
}

/* Writes the keys that aren't as in `like`: how many others lie before each, and its place. */
static enum fit put_moved(struct message *message, PyObject *keys, PyObject *like) {
    PyObject *scheduled = message->reply->scheduled;
    Py_ssize_t n = PyList_GET_SIZE(keys), n_like = PyList_GET_SIZE(like), gap = 0, next = 0;
    Py_ssize_t left = COMPARISONS * PyList_GET_SIZE(scheduled);
    for (Py_ssize_t i = 0; i < n; i++, gap++) {
        PyObject *key = PyList_GET_ITEM(keys, i);
        if (i < n_like && is_same_key(PyList_GET_ITEM(like, i), key))
            continue;
        Py_ssize_t place = find_place(scheduled, key, &next, &left);
        if (place < 0)
            return UNFIT;
        pack_varint(&message->out, (uint64_t)gap);
        pack_varint(&message->out, (uint64_t)place);
        gap = -1;
    }
    return FITS;
}

enum fit order_put(struct message *message, PyObject *value, enum field_kind Py_UNUSED(kind)) {
    struct reply_base *base = message->reply;
    if (!PyList_CheckExact(value) || PyList_GET_SIZE(value) == 0)
        return UNFIT;
    if (rows_same_items(value, base->keys)) {
        pack_byte(&message->out, LIKE_ALL_OF_BEFORE);
        base->new_keys = Py_NewRef(base->keys);
        return FITS;
    }
    size_t before = count_differences(value, base->keys);
    size_t scheduled = count_differences(value, base->scheduled);
    bool is_before = before <= scheduled;
    pack_byte(&message->out, is_before ? LIKE_BEFORE : LIKE_SCHEDULED);
    pack_varint(&message->out, (uint64_t)PyList_GET_SIZE(value));
    pack_varint(&message->out, is_before ? before : scheduled);
    enum fit fit = put_moved(message, value, is_before ? base->keys : base->scheduled);
    if (fit != FITS)
        return fit;
    base->changed = true;
    base->new_keys = PyList_GetSlice(value, 0, PyList_GET_SIZE(value));
    return base->new_keys ? FITS : FAILED;
}

static PyObject *get_moved(struct message *message, PyObject *like) {
    struct unpacker *in = &message->in;
    PyObject *scheduled = message->reply->scheduled;
    size_t n = unpack_length(in), moved = unpack_length(in);
    if (moved > (size_t)(in->end - in->at) || n > (size_t)PyList_GET_SIZE(like) + moved)
        return message_bad(message);
    size_t next = moved > 0 ? unpack_length(in) : n; /* the next one that has moved */
    PyObject *keys = PyList_New((Py_ssize_t)n);
    for (size_t i = 0; keys && i < n && !in->bad; i++) {
        PyObject *from = i == next ? scheduled : like;
        size_t at = i == next ? unpack_length(in) : i;
        if (i == next)
            next = --moved > 0 ? i + 1 + unpack_length(in) : n;
        if (at < (size_t)PyList_GET_SIZE(from))
            PyList_SET_ITEM(keys, (Py_ssize_t)i, Py_NewRef(PyList_GET_ITEM(from, (Py_ssize_t)at)));
        else
            in->bad = true;
    }
    if (in->bad)
        Py_CLEAR(keys);
    return keys;
}

PyObject *order_get(struct message *message, enum field_kind Py_UNUSED(kind)) {
    struct reply_base *base = message->reply;
    uint8_t like = unpack_byte(&message->in);
    base->changed = like != LIKE_ALL_OF_BEFORE;
    if (base->changed)
        base->new_keys = get_moved(message, like == LIKE_BEFORE ? base->keys : base->scheduled);
    else
        base->new_keys = Py_NewRef(base->keys);
    return base->new_keys ? PyList_GetSlice(base->new_keys, 0, PyList_GET_SIZE(base->new_keys))
                          : NULL;
}

static const struct slots *old_indices(const struct reply_base *base) {
    static const struct slots none;
    return base->order ? &base->order->indices : &none;
}

/* Reads the dict's values in its order. UNFIT if they aren't the indices of its keys. */
static enum fit read_indices(PyObject *keys, PyObject *dict, struct slots *indices) {
    Py_ssize_t position = 0, n = PyList_GET_SIZE(keys);
    PyObject *key, *value;
    int64_t at;
    if (PyDict_GET_SIZE(dict) != n)
        return UNFIT;
    if (!rows_resize_slots(indices, (size_t)n))
        return FAILED;
    for (size_t i = 0; PyDict_Next(dict, &position, &key, &value); i++) {
        if (!number_of(value, &at) || at < 0 || at >= n ||
            !is_same_key(PyList_GET_ITEM(keys, (Py_ssize_t)at), key))
            return UNFIT;
        indices->at[i] = (uint32_t)at;
    }
    return FITS;
}

enum fit order_put_index(struct message *message, PyObject *value,
                         enum field_kind Py_UNUSED(kind)) {
    struct reply_base *base = message->reply;
    struct slots *indices = &base->new_indices;
    if (!PyDict_CheckExact(value) || PyDict_GET_SIZE(value) == 0 || !base->new_keys)
        return UNFIT;
    enum fit fit = read_indices(base->new_keys, value, indices);
    if (fit != FITS)
        return fit;
    base->changed |= !pack_edits(&message->out, old_indices(base), indices);
    base->has_index = true;
    return FITS;
}

/* The dict whose values are the new indices. */
static PyObject *make_index(struct message *message) {
    const struct slots *indices = &message->reply->new_indices;
    PyObject *keys = message->reply->new_keys, *index = PyDict_New();
    for (size_t i = 0; index && i < indices->n; i++) {
        size_t at = indices->at[i];
        PyObject *value = at < (size_t)PyList_GET_SIZE(keys)
                              ? number_object(&message->module->ints, (int64_t)at)
                              : NULL;
        if (!value || PyDict_SetItem(index, PyList_GET_ITEM(keys, (Py_ssize_t)at), value) != 0)
            Py_CLEAR(index);
        Py_XDECREF(value);
    }
    /* If not, an index comes twice or is missing. */
    if (index && PyDict_GET_SIZE(index) != PyList_GET_SIZE(keys))
        Py_CLEAR(index);
    return index;
}

PyObject *order_get_index(struct message *message, enum field_kind Py_UNUSED(kind)) {
    struct reply_base *base = message->reply;
    if (!base->new_keys)
        return message_bad(message);
    base->changed |= !unpack_edits(&message->in, old_indices(base), &base->new_indices);
    base->has_index = true;
    if (message->in.bad)
        return NULL;
    bool same = base->order && !base->changed;
    base->new_index = same ? Py_XNewRef(base->order->index) : make_index(message);
    return base->new_index ? PyDict_Copy(base->new_index) : message_bad(message);
}
