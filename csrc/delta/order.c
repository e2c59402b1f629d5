#include "delta/order.h"

enum { ORDER_SAME, ORDER_EDITED };

/* The places of the base's keys. */
static bool find_old_places(struct reply_base *base) {
    Py_ssize_t n = PyList_GET_SIZE(base->keys);
    if (!places_make(&base->places))
        return false;
    if (base->old_places.n == (size_t)n)
        return true;
    if (!rows_resize_slots(&base->old_places, (size_t)n))
        return false;
    for (Py_ssize_t i = 0; i < n; i++)
        base->old_places.at[i] = places_of(&base->places, PyList_GET_ITEM(base->keys, i));
    return true;
}

/* The places of the keys of the dict that an edited one is described against. */
static bool find_base_index_places(struct reply_base *base, struct slots *places) {
    if (!find_old_places(base))
        return false;
    const struct slots *old = &base->old_places;
    if (!base->order)
        return rows_copy_slots(places, old);
    const struct slots *indices = &base->order->indices;
    if (!rows_resize_slots(places, indices->n))
        return false;
    for (size_t i = 0; i < indices->n; i++)
        places->at[i] = old->at[indices->at[i]];
    return true;
}

/* Both ends have found the same places. */
static void add_places(struct reply_base *base, const struct slots *places) {
    struct digest digest = digest_begin(base->digest);
    digest_add(&digest, places->at, places->n * sizeof *places->at);
    base->digest = digest_end(&digest);
}

static bool are_all_known(const struct slots *places) {
    for (size_t i = 0; i < places->n; i++)
        if (places->at[i] == NO_PLACE)
            return false;
    return true;
}

static enum fit put_edited(struct message *message, const struct slots *from,
                           const struct slots *to) {
    if (!are_all_known(to))
        return UNFIT;
    pack_byte(&message->out, ORDER_EDITED);
    pack_edits(&message->out, from, to);
    add_places(message->reply, to);
    return FITS;
}

/* The places of this reply's keys. */
static bool find_new_places(struct reply_base *base, PyObject *keys) {
    Py_ssize_t n = PyList_GET_SIZE(keys), n_old = PyList_GET_SIZE(base->keys);
    if (n > 0 && base->new_places.n == (size_t)n)
        return true;
    if (!find_old_places(base))
        return false;
    if (!rows_resize_slots(&base->new_places, (size_t)n))
        return false;
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *key = PyList_GET_ITEM(keys, i);
        bool stays = i < n_old && PyList_GET_ITEM(base->keys, i) == key;
        base->new_places.at[i] = stays ? base->old_places.at[i] : places_of(&base->places, key);
    }
    return true;
}

static enum fit put_order(struct message *message, PyObject *value) {
    struct reply_base *base = message->reply;
    if (!PyList_CheckExact(value) || PyList_GET_SIZE(value) == 0)
        return UNFIT;
    if (reuse_has_same_items(value, base->keys)) {
        pack_byte(&message->out, ORDER_SAME);
        base->new_keys = Py_NewRef(base->keys);
        base->has_order = true;
        return FITS;
    }
    enum fit fit = find_new_places(base, value)
                       ? put_edited(message, &base->old_places, &base->new_places)
                       : FAILED;
    if (fit != FITS)
        return fit;
    base->new_keys = PyList_GetSlice(value, 0, PyList_GET_SIZE(value));
    base->has_order = base->changed = true;
    return base->new_keys ? FITS : FAILED;
}

/* The base's keys in the order of its index, each with the int that says where it is. */
static bool same_index(PyObject *dict, const struct reply_base *base) {
    Py_ssize_t position = 0;
    PyObject *key, *value;
    if (!base->order || (size_t)PyDict_GET_SIZE(dict) != base->order->indices.n)
        return false;
    const uint32_t *indices = base->order->indices.at;
    for (size_t i = 0; PyDict_Next(dict, &position, &key, &value); i++) {
        int64_t at;
        if (!number_of(value, &at) || at != indices[i] ||
            PyList_GET_ITEM(base->keys, (Py_ssize_t)at) != key)
            return false;
    }
    return true;
}

/* The places of a dict's keys, in its order. FITS: its values are where they are in this reply's
 * own keys, which are no others. */
static enum fit find_index_places(struct reply_base *base, PyObject *dict, struct slots *places) {
    Py_ssize_t position = 0, n_keys = PyList_GET_SIZE(base->new_keys);
    const struct slots *known = &base->new_places;
    struct slots *indices = &base->new_indices;
    PyObject *key, *value;
    int64_t at = 0;
    if (PyDict_GET_SIZE(dict) != n_keys)
        return UNFIT;
    if (!rows_resize_slots(places, (size_t)n_keys) || !slots_resize(indices, (size_t)n_keys))
        return FAILED;
    for (size_t i = 0; PyDict_Next(dict, &position, &key, &value); i++) {
        if (!number_of(value, &at) || at < 0 || at >= n_keys)
            return UNFIT;
        bool is_there = PyList_GET_ITEM(base->new_keys, (Py_ssize_t)at) == key;
        if (!is_there && places_of(&base->places, key) != known->at[at])
            return UNFIT;
        indices->at[i] = (uint32_t)at;
        places->at[i] = known->at[at];
    }
    return FITS;
}

static enum fit put_index(struct message *message, PyObject *value) {
    struct reply_base *base = message->reply;
    if (!PyDict_CheckExact(value) || PyDict_GET_SIZE(value) == 0 || !base->has_order)
        return UNFIT;
    if (!base->changed && same_index(value, base)) {
        pack_byte(&message->out, ORDER_SAME);
        base->has_index = true;
        return FITS;
    }
    if (!find_base_index_places(base, &message->scratch.from) ||
        !find_new_places(base, base->new_keys))
        return FAILED;
    enum fit fit = find_index_places(base, value, &message->scratch.to);
    if (fit == FITS)
        fit = put_edited(message, &message->scratch.from, &message->scratch.to);
    if (fit == FITS)
        base->has_index = base->changed = true;
    return fit;
}

/* The places that edits of `from` lead to. */
static bool get_edited(struct message *message, const struct slots *from, struct slots *to) {
    Py_ssize_t n = PyList_GET_SIZE(message->reply->places.scheduled);
    unpack_edits(&message->in, from, to);
    if (message->in.bad)
        return false;
    for (size_t i = 0; i < to->n; i++)
        if ((Py_ssize_t)to->at[i] >= n)
            message->in.bad = true;
    add_places(message->reply, to);
    return !message->in.bad;
}

static PyObject *get_edited_keys(struct message *message) {
    struct reply_base *base = message->reply;
    struct slots *places = &base->new_places;
    if (!find_old_places(base) || !get_edited(message, &base->old_places, places))
        return NULL;
    PyObject *keys = PyList_New((Py_ssize_t)places->n);
    for (size_t i = 0; keys && i < places->n; i++)
        PyList_SET_ITEM(
            keys, (Py_ssize_t)i,
            Py_NewRef(PyList_GET_ITEM(base->places.scheduled, (Py_ssize_t)places->at[i])));
    return keys;
}

static PyObject *get_order(struct message *message) {
    struct reply_base *base = message->reply;
    base->changed = unpack_byte(&message->in) != ORDER_SAME;
    base->new_keys = base->changed ? get_edited_keys(message) : Py_NewRef(base->keys);
    base->has_order = base->new_keys != NULL;
    if (!base->has_order)
        return NULL;
    if (!base->changed && base->order)
        return reuse_list(&base->order->last_keys, base->keys);
    return PyList_GetSlice(base->new_keys, 0, PyList_GET_SIZE(base->new_keys));
}

/* Where each scheduled key is among the reply's own, or NO_PLACE. */
static bool find_indices(struct message *message, struct slots *indices) {
    struct reply_base *base = message->reply;
    size_t n = (size_t)PyList_GET_SIZE(base->places.scheduled);
    if (!find_new_places(base, base->new_keys))
        return false;
    if (!rows_resize_slots(indices, n))
        return false;
    for (size_t i = 0; i < n; i++)
        indices->at[i] = NO_PLACE;
    for (size_t i = 0; i < base->new_places.n; i++)
        if (base->new_places.at[i] != NO_PLACE)
            indices->at[base->new_places.at[i]] = (uint32_t)i;
    return true;
}

static bool set_index(struct message *message, PyObject *index, PyObject *key, uint32_t at) {
    PyObject *value = number_object(&message->module->ints, at);
    bool set = value && PyDict_SetItem(index, key, value) == 0;
    Py_XDECREF(value);
    return set;
}

/* Makes of a copy of the base's dict, whose keys have the places `from`, what begins as `to` does.
 * How many of `to` it has then; SIZE_MAX with an exception set. */
static size_t keep_begin(struct message *message, PyObject *index, const struct slots *from,
                         const struct slots *to, const struct slots *indices) {
    Py_ssize_t position = 0;
    PyObject *key, *value;
    size_t kept = 0;
    for (size_t i = 0; PyDict_Next(message->reply->order->index, &position, &key, &value); i++) {
        if (kept == to->n || i >= from->n || from->at[i] != to->at[kept]) {
            if (PyDict_DelItem(index, key) != 0)
                return SIZE_MAX;
            continue;
        }
        uint32_t at = indices->at[to->at[kept++]];
        int64_t before;
        if ((!number_of(value, &before) || before != at) && !set_index(message, index, key, at))
            return SIZE_MAX;
    }
    return kept;
}

/* The dict whose keys have the places `to`. Mostly it is the base's but for a few of them. */
static PyObject *index_of(struct message *message, const struct slots *from, const struct slots *to,
                          const struct slots *indices) {
    struct reply_base *base = message->reply;
    size_t next = 0;
    for (size_t i = 0; i < to->n; i++)
        if (indices->at[to->at[i]] == NO_PLACE)
            message->in.bad = true;
    if (message->in.bad)
        return NULL;
    PyObject *before = base->order ? base->order->index : NULL;
    PyObject *index = before ? PyDict_Copy(before) : PyDict_New();
    if (index && before)
        next = keep_begin(message, index, from, to, indices);
    for (; index && next < to->n; next++) {
        uint32_t place = to->at[next];
        if (!set_index(message, index, PyList_GET_ITEM(base->places.scheduled, place),
                       indices->at[place]))
            Py_CLEAR(index);
    }
    if (next == SIZE_MAX)
        Py_CLEAR(index);
    return index;
}

/* The indices of the keys whose places are `to`. */
static bool note_indices(struct reply_base *base, const struct slots *to,
                         const struct slots *indices) {
    if (to->n == 0) /* is never sent so */
        return false;
    if (!rows_resize_slots(&base->new_indices, to->n))
        return false;
    for (size_t i = 0; i < to->n; i++)
        base->new_indices.at[i] = indices->at[to->at[i]];
    return true;
}

static PyObject *get_edited_index(struct message *message) {
    struct slots indices = {0};
    PyObject *index = NULL;
    if (find_base_index_places(message->reply, &message->scratch.from) &&
        get_edited(message, &message->scratch.from, &message->scratch.to) &&
        find_indices(message, &indices) &&
        note_indices(message->reply, &message->scratch.to, &indices))
        index = index_of(message, &message->scratch.from, &message->scratch.to, &indices);
    slots_free(&indices);
    return index;
}

static PyObject *get_index(struct message *message) {
    struct reply_base *base = message->reply;
    struct reply_order *order = base->order;
    if (unpack_byte(&message->in) == ORDER_SAME) {
        base->has_index = order && order->index && base->has_order && !base->changed;
        if (base->has_index)
            return reuse_dict(&order->last_index, order->index);
    } else if (base->has_order) {
        base->changed = true;
        base->new_index = get_edited_index(message);
        base->has_index = base->new_index != NULL;
        if (base->has_index)
            return PyDict_Copy(base->new_index);
    }
    message->in.bad = true;
    return NULL;
}

const struct codec order_codec = {put_order, get_order}, order_codec_index = {put_index, get_index};
