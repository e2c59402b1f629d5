/* A reply's keys in their order, and the dict of each one's place in it: as edits of what an
 * earlier reply has said. Both ends speak of keys as places: where they stand in the request's own
 * list. */
#include "delta.h"

#include <stdlib.h>
#include <string.h>

enum { ORDER_SAME, ORDER_EDITED };

#define NO_PLACE UINT32_MAX

/* Of a str, which mostly knows it. */
static Py_hash_t hash_of(PyObject *text) {
    Py_hash_t hash = ((PyASCIIObject *)text)->hash;
    return hash != -1 ? hash : PyObject_Hash(text);
}

/* Where a key's place is, or would be. */
static uint32_t *home_of(const struct reply_base *base, PyObject *key) {
    Py_hash_t hash = hash_of(key);
    for (size_t at = (size_t)hash & base->mask;; at = (at + 1) & base->mask) {
        uint32_t *home = &base->homes[at];
        if (*home == NO_PLACE)
            return home;
        PyObject *there = PyList_GET_ITEM(base->scheduled, (Py_ssize_t)*home);
        if (there == key || (hash_of(there) == hash && PyUnicode_Compare(there, key) == 0))
            return home;
    }
}

bool own_scheduled(struct reply_base *base) {
    if (base->own)
        return true;
    base->own = PyList_GetSlice(base->scheduled, 0, PyList_GET_SIZE(base->scheduled));
    if (base->own)
        base->scheduled = base->own;
    return base->own != NULL;
}

/* A table by the keys' hashes, half of it free at least. A dict takes several times as long to
 * make, and this is made for every reply whose order is new. */
static bool find_homes(struct reply_base *base) {
    size_t size = 16;
    if (base->homes)
        return true;
    if (!own_scheduled(base))
        return false;
    Py_ssize_t n = PyList_GET_SIZE(base->scheduled);
    while (size < 2 * (size_t)n)
        size *= 2;
    base->homes = malloc(size * sizeof *base->homes);
    if (!base->homes)
        return out_of_memory() == FITS;
    memset(base->homes, 0xFF, size * sizeof *base->homes);
    base->mask = size - 1;
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *key = PyList_GET_ITEM(base->scheduled, i);
        if (PyUnicode_CheckExact(key))
            *home_of(base, key) = (uint32_t)i;
    }
    return true;
}

/* A key's place among the scheduled ones; NO_PLACE if it wasn't scheduled. */
static uint32_t place_of(const struct reply_base *base, PyObject *key) {
    return PyUnicode_CheckExact(key) ? *home_of(base, key) : NO_PLACE;
}

/* The places of the base's keys. */
static bool find_old_places(struct reply_base *base) {
    Py_ssize_t n = PyList_GET_SIZE(base->keys);
    if (!find_homes(base))
        return false;
    if (base->old_places.n == (size_t)n)
        return true;
    if (!slots_resize(&base->old_places, (size_t)n))
        return out_of_memory() == FITS;
    for (Py_ssize_t i = 0; i < n; i++)
        base->old_places.at[i] = place_of(base, PyList_GET_ITEM(base->keys, i));
    return true;
}

/* The places of the keys of the dict that an edited one is described against. */
static bool find_base_index_places(struct reply_base *base, struct slots *places) {
    if (!find_old_places(base))
        return false;
    const struct slots *old = &base->old_places;
    if (!base->order)
        return slots_copy(places, old) || out_of_memory() == FITS;
    const struct slots *indices = &base->order->indices;
    if (!slots_resize(places, indices->n))
        return out_of_memory() == FITS;
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

static enum fit put_edited(struct step *step, const struct slots *from, const struct slots *to) {
    if (!are_all_known(to))
        return UNFIT;
    pack_byte(&step->out, ORDER_EDITED);
    pack_edits(&step->out, from, to);
    add_places(step->reply, to);
    return FITS;
}

/* The places of this reply's keys. */
static bool find_new_places(struct reply_base *base, PyObject *keys) {
    Py_ssize_t n = PyList_GET_SIZE(keys), n_old = PyList_GET_SIZE(base->keys);
    if (n > 0 && base->new_places.n == (size_t)n)
        return true;
    if (!find_old_places(base))
        return false;
    if (!slots_resize(&base->new_places, (size_t)n))
        return out_of_memory() == FITS;
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *key = PyList_GET_ITEM(keys, i);
        bool stays = i < n_old && PyList_GET_ITEM(base->keys, i) == key;
        base->new_places.at[i] = stays ? base->old_places.at[i] : place_of(base, key);
    }
    return true;
}

enum fit put_order(struct step *step, PyObject *value) {
    struct reply_base *base = step->reply;
    if (!PyList_CheckExact(value) || PyList_GET_SIZE(value) == 0)
        return UNFIT;
    if (same_items(value, base->keys)) {
        pack_byte(&step->out, ORDER_SAME);
        base->new_keys = Py_NewRef(base->keys);
        base->has_order = true;
        return FITS;
    }
    enum fit fit = find_new_places(base, value)
                       ? put_edited(step, &base->old_places, &base->new_places)
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
        if (!int_of(value, &at) || at != indices[i] ||
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
    if (!slots_resize(places, (size_t)n_keys) || !slots_resize(indices, (size_t)n_keys))
        return out_of_memory();
    for (size_t i = 0; PyDict_Next(dict, &position, &key, &value); i++) {
        if (!int_of(value, &at) || at < 0 || at >= n_keys)
            return UNFIT;
        bool is_there = PyList_GET_ITEM(base->new_keys, (Py_ssize_t)at) == key;
        if (!is_there && place_of(base, key) != known->at[at])
            return UNFIT;
        indices->at[i] = (uint32_t)at;
        places->at[i] = known->at[at];
    }
    return FITS;
}

enum fit put_index(struct step *step, PyObject *value) {
    struct reply_base *base = step->reply;
    if (!PyDict_CheckExact(value) || PyDict_GET_SIZE(value) == 0 || !base->has_order)
        return UNFIT;
    if (!base->changed && same_index(value, base)) {
        pack_byte(&step->out, ORDER_SAME);
        base->has_index = true;
        return FITS;
    }
    if (!find_base_index_places(base, &step->keys) || !find_new_places(base, base->new_keys))
        return FAILED;
    enum fit fit = find_index_places(base, value, &step->counted);
    if (fit == FITS)
        fit = put_edited(step, &step->keys, &step->counted);
    if (fit == FITS)
        base->has_index = base->changed = true;
    return fit;
}

/* The places that edits of `from` lead to. */
static bool get_edited(struct step *step, const struct slots *from, struct slots *to) {
    Py_ssize_t n = PyList_GET_SIZE(step->reply->scheduled);
    unpack_edits(&step->in, from, to);
    if (step->in.bad)
        return false;
    for (size_t i = 0; i < to->n; i++)
        if ((Py_ssize_t)to->at[i] >= n)
            step->in.bad = true;
    add_places(step->reply, to);
    return !step->in.bad;
}

static PyObject *get_edited_keys(struct step *step) {
    struct reply_base *base = step->reply;
    struct slots *places = &base->new_places;
    if (!find_old_places(base) || !get_edited(step, &base->old_places, places))
        return NULL;
    PyObject *keys = PyList_New((Py_ssize_t)places->n);
    for (size_t i = 0; keys && i < places->n; i++)
        PyList_SET_ITEM(keys, (Py_ssize_t)i,
                        Py_NewRef(PyList_GET_ITEM(base->scheduled, (Py_ssize_t)places->at[i])));
    return keys;
}

PyObject *get_order(struct step *step) {
    struct reply_base *base = step->reply;
    base->changed = unpack_byte(&step->in) != ORDER_SAME;
    base->new_keys = base->changed ? get_edited_keys(step) : Py_NewRef(base->keys);
    base->has_order = base->new_keys != NULL;
    if (!base->has_order)
        return NULL;
    if (!base->changed && base->order)
        return give_list(&base->order->given_keys, base->keys);
    return PyList_GetSlice(base->new_keys, 0, PyList_GET_SIZE(base->new_keys));
}

/* Where each scheduled key is among the reply's own, or NO_PLACE. */
static bool find_indices(struct step *step, struct slots *indices) {
    struct reply_base *base = step->reply;
    size_t n = (size_t)PyList_GET_SIZE(base->scheduled);
    if (!find_new_places(base, base->new_keys))
        return false;
    if (!slots_resize(indices, n))
        return out_of_memory() == FITS;
    for (size_t i = 0; i < n; i++)
        indices->at[i] = NO_PLACE;
    for (size_t i = 0; i < base->new_places.n; i++)
        if (base->new_places.at[i] != NO_PLACE)
            indices->at[base->new_places.at[i]] = (uint32_t)i;
    return true;
}

static bool set_index(struct step *step, PyObject *index, PyObject *key, uint32_t at) {
    PyObject *value = int_object(step->module, at);
    bool set = value && PyDict_SetItem(index, key, value) == 0;
    Py_XDECREF(value);
    return set;
}

/* Makes of a copy of the base's dict, whose keys have the places `from`, what begins as `to` does.
 * How many of `to` it has then; SIZE_MAX with an exception set. */
static size_t keep_begin(struct step *step, PyObject *index, const struct slots *from,
                         const struct slots *to, const struct slots *indices) {
    Py_ssize_t position = 0;
    PyObject *key, *value;
    size_t kept = 0;
    for (size_t i = 0; PyDict_Next(step->reply->order->index, &position, &key, &value); i++) {
        if (kept == to->n || i >= from->n || from->at[i] != to->at[kept]) {
            if (PyDict_DelItem(index, key) != 0)
                return SIZE_MAX;
            continue;
        }
        uint32_t at = indices->at[to->at[kept++]];
        int64_t before;
        if ((!int_of(value, &before) || before != at) && !set_index(step, index, key, at))
            return SIZE_MAX;
    }
    return kept;
}

/* The dict whose keys have the places `to`. Mostly it is the base's but for a few of them. */
static PyObject *index_of(struct step *step, const struct slots *from, const struct slots *to,
                          const struct slots *indices) {
    struct reply_base *base = step->reply;
    size_t next = 0;
    for (size_t i = 0; i < to->n; i++)
        if (indices->at[to->at[i]] == NO_PLACE)
            step->in.bad = true;
    if (step->in.bad)
        return NULL;
    PyObject *before = base->order ? base->order->index : NULL;
    PyObject *index = before ? PyDict_Copy(before) : PyDict_New();
    if (index && before)
        next = keep_begin(step, index, from, to, indices);
    for (; index && next < to->n; next++) {
        uint32_t place = to->at[next];
        if (!set_index(step, index, PyList_GET_ITEM(base->scheduled, place), indices->at[place]))
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
    if (!slots_resize(&base->new_indices, to->n))
        return out_of_memory() == FITS;
    for (size_t i = 0; i < to->n; i++)
        base->new_indices.at[i] = indices->at[to->at[i]];
    return true;
}

static PyObject *get_edited_index(struct step *step) {
    struct slots indices = {0};
    PyObject *index = NULL;
    if (find_base_index_places(step->reply, &step->keys) &&
        get_edited(step, &step->keys, &step->counted) && find_indices(step, &indices) &&
        note_indices(step->reply, &step->counted, &indices))
        index = index_of(step, &step->keys, &step->counted, &indices);
    slots_free(&indices);
    return index;
}

PyObject *get_index(struct step *step) {
    struct reply_base *base = step->reply;
    struct reply_order *order = base->order;
    if (unpack_byte(&step->in) == ORDER_SAME) {
        base->has_index = order && order->index && base->has_order && !base->changed;
        if (base->has_index)
            return give_dict(&order->given_index, order->index);
    } else if (base->has_order) {
        base->changed = true;
        base->new_index = get_edited_index(step);
        base->has_index = base->new_index != NULL;
        if (base->has_index)
            return PyDict_Copy(base->new_index);
    }
    step->in.bad = true;
    return NULL;
}
