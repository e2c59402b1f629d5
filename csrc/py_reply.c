/* Replies: against the request that they answer, and the order of an earlier reply that its sender
 * has been told has come. Nothing is kept here, so that a reply may be dropped. */
#include "delta.h"

#include <string.h>

enum { ORDER_SAME, ORDER_EDITED };

/* From (seed, scheduled, order): what both ends know of a request. */
static bool read_base(struct reply_base *base, PyObject *tuple, uint64_t *seed) {
    PyObject *number;
    unsigned long long digest = 0;
    if (!PyArg_ParseTuple(tuple, "O!O!O:base", &PyLong_Type, &number, &PyList_Type,
                          &base->scheduled, &base->order))
        return false;
    base->keys = base->scheduled;
    if (base->order != Py_None &&
        !PyArg_ParseTuple(base->order, "O!O!K:order", &PyList_Type, &base->keys, &PyDict_Type,
                          &base->index, &digest))
        return false;
    *seed = digest_word(PyLong_AsUnsignedLongLong(number), digest);
    return !PyErr_Occurred();
}

static void base_free(struct reply_base *base) {
    Py_CLEAR(base->place_of);
    Py_CLEAR(base->new_keys);
    Py_CLEAR(base->new_index);
}

static bool find_places(struct step *step) {
    struct reply_base *base = step->reply;
    if (base->place_of)
        return true;
    base->place_of = PyDict_New();
    for (Py_ssize_t i = 0; base->place_of && i < PyList_GET_SIZE(base->scheduled); i++) {
        PyObject *place = int_object(step->module, i);
        if (!place ||
            PyDict_SetItem(base->place_of, PyList_GET_ITEM(base->scheduled, i), place) != 0)
            Py_CLEAR(base->place_of);
        Py_XDECREF(place);
    }
    return base->place_of != NULL;
}

/* The place of each key among the scheduled ones; UINT32_MAX for a key that wasn't scheduled. */
static bool places_of(struct step *step, PyObject *keys, struct slots *places, bool *all) {
    *all = true;
    if (!find_places(step))
        return false;
    Py_ssize_t n = PyList_GET_SIZE(keys);
    if (!slots_resize(places, (size_t)n))
        return out_of_memory() == FITS;
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *place = PyDict_GetItemWithError(step->reply->place_of, PyList_GET_ITEM(keys, i));
        if (!place && PyErr_Occurred())
            return false;
        *all = *all && place;
        places->at[i] = place ? (uint32_t)PyLong_AsUnsignedLong(place) : UINT32_MAX;
    }
    return true;
}

static bool all_texts(PyObject *keys) {
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(keys); i++)
        if (!PyUnicode_CheckExact(PyList_GET_ITEM(keys, i)))
            return false;
    return true;
}

static enum fit put_edited(struct step *step, PyObject *from, PyObject *to) {
    bool all, ignored;
    enum fit fit = FAILED;
    if (places_of(step, from, &step->keys, &ignored) && places_of(step, to, &step->counted, &all))
        fit = all ? FITS : UNFIT;
    if (fit == FITS) {
        pack_byte(&step->out, ORDER_EDITED);
        pack_edits(&step->out, &step->keys, &step->counted);
    }
    return fit;
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
    enum fit fit = all_texts(value) ? put_edited(step, base->keys, value) : UNFIT;
    if (fit != FITS)
        return fit;
    base->new_keys = PyList_GetSlice(value, 0, PyList_GET_SIZE(value));
    base->has_order = base->changed = true;
    return base->new_keys ? FITS : FAILED;
}

/* The same keys in the same order, with the same ints. */
static bool same_index(PyObject *a, PyObject *b) {
    Py_ssize_t at = 0, bt = 0;
    PyObject *a_key, *a_value, *b_key, *b_value;
    if (!b || PyDict_GET_SIZE(a) != PyDict_GET_SIZE(b))
        return false;
    while (PyDict_Next(a, &at, &a_key, &a_value) && PyDict_Next(b, &bt, &b_key, &b_value)) {
        int64_t x, y;
        if (a_key != b_key ||
            (a_value != b_value && !(int_of(a_value, &x) && int_of(b_value, &y) && x == y)))
            return false;
    }
    return true;
}

/* Whether every key's value is its place in `keys`, which has no more. */
static bool is_index_of(PyObject *dict, PyObject *keys) {
    Py_ssize_t position = 0, n = PyList_GET_SIZE(keys);
    PyObject *key, *value;
    if (PyDict_GET_SIZE(dict) != n)
        return false;
    while (PyDict_Next(dict, &position, &key, &value)) {
        int64_t place;
        if (!PyUnicode_CheckExact(key) || !int_of(value, &place) || place < 0 || place >= n)
            return false;
        PyObject *there = PyList_GET_ITEM(keys, (Py_ssize_t)place);
        if (there != key && PyUnicode_Compare(there, key) != 0)
            return false;
    }
    return true;
}

static PyObject *keys_of(PyObject *dict_or_list) {
    return PyDict_Check(dict_or_list) ? PyDict_Keys(dict_or_list) : Py_NewRef(dict_or_list);
}

enum fit put_index(struct step *step, PyObject *value) {
    struct reply_base *base = step->reply;
    if (!PyDict_CheckExact(value) || PyDict_GET_SIZE(value) == 0 || !base->has_order)
        return UNFIT;
    if (same_index(value, base->index)) {
        pack_byte(&step->out, ORDER_SAME);
        base->new_index = Py_NewRef(base->index);
        base->has_index = true;
        return FITS;
    }
    if (!is_index_of(value, base->new_keys))
        return UNFIT;
    PyObject *from = keys_of(base->index ? base->index : base->scheduled);
    PyObject *to = PyDict_Keys(value);
    enum fit fit = from && to ? put_edited(step, from, to) : FAILED;
    Py_XDECREF(from);
    Py_XDECREF(to);
    if (fit != FITS)
        return fit;
    base->new_index = PyDict_Copy(value);
    base->has_index = base->changed = true;
    return base->new_index ? FITS : FAILED;
}

static PyObject *get_edited(struct step *step, PyObject *from) {
    bool all;
    PyObject *scheduled = step->reply->scheduled, *keys = NULL;
    if (!places_of(step, from, &step->keys, &all))
        return NULL;
    unpack_edits(&step->in, &step->keys, &step->counted);
    for (size_t i = 0; i < step->counted.n; i++)
        if ((Py_ssize_t)step->counted.at[i] >= PyList_GET_SIZE(scheduled))
            step->in.bad = true;
    if (!step->in.bad)
        keys = PyList_New((Py_ssize_t)step->counted.n);
    for (size_t i = 0; keys && i < step->counted.n; i++)
        PyList_SET_ITEM(keys, (Py_ssize_t)i,
                        Py_NewRef(PyList_GET_ITEM(scheduled, (Py_ssize_t)step->counted.at[i])));
    return keys;
}

PyObject *get_order(struct step *step) {
    struct reply_base *base = step->reply;
    if (unpack_byte(&step->in) == ORDER_SAME) {
        base->new_keys = Py_NewRef(base->keys);
    } else {
        base->new_keys = get_edited(step, base->keys);
        base->changed = true;
    }
    base->has_order = base->new_keys != NULL;
    return base->has_order ? PyList_GetSlice(base->new_keys, 0, PyList_GET_SIZE(base->new_keys))
                           : NULL;
}

/* `order`: the keys of the dict, in its order. Their values are their places in the reply's keys.
 */
static PyObject *index_of(struct step *step, PyObject *order) {
    PyObject *index = PyDict_New(), *keys = step->reply->new_keys;
    Py_ssize_t n = PyList_GET_SIZE(order);
    for (Py_ssize_t i = 0; index && i < n; i++)
        if (PyDict_SetItem(index, PyList_GET_ITEM(order, i), Py_None) != 0)
            Py_CLEAR(index);
    for (Py_ssize_t i = 0; index && i < PyList_GET_SIZE(keys); i++) {
        PyObject *place = int_object(step->module, i);
        if (!place || PyDict_SetItem(index, PyList_GET_ITEM(keys, i), place) != 0)
            Py_CLEAR(index);
        Py_XDECREF(place);
    }
    return index;
}

PyObject *get_index(struct step *step) {
    struct reply_base *base = step->reply;
    if (unpack_byte(&step->in) == ORDER_SAME) {
        base->new_index = Py_XNewRef(base->index);
    } else if (base->has_order) {
        PyObject *from = keys_of(base->index ? base->index : base->scheduled);
        PyObject *order = from ? get_edited(step, from) : NULL;
        base->new_index = order ? index_of(step, order) : NULL;
        base->changed = true;
        Py_XDECREF(from);
        Py_XDECREF(order);
    }
    base->has_index = base->new_index != NULL;
    if (base->has_index)
        return PyDict_Copy(base->new_index);
    step->in.bad = true;
    return NULL;
}

/* What a later reply may be against: (keys, index, digest), or what this one was against. */
static PyObject *next_order(const struct reply_base *base) {
    if (!base->has_order || !base->has_index || !base->changed)
        return Py_NewRef(base->order);
    struct digest digest = digest_begin(0);
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(base->new_keys); i++) {
        Py_ssize_t length;
        const char *text = PyUnicode_AsUTF8AndSize(PyList_GET_ITEM(base->new_keys, i), &length);
        if (!text)
            return NULL;
        digest_add(&digest, text, (size_t)length);
    }
    return Py_BuildValue("OOK", base->new_keys, base->new_index,
                         (unsigned long long)digest_end(&digest));
}

/* (record, base, dumps) -> (message, order) */
PyObject *plan_encode(PyObject *self, PyObject *const *args, Py_ssize_t n_args) {
    const struct plan_object *plan = (const struct plan_object *)self;
    struct reply_base base = {0};
    uint64_t seed, check;
    if (n_args != 3 || !Py_IS_TYPE(args[0], plan->type)) {
        PyErr_SetString(PyExc_TypeError, "encode_reply(record, base, dumps)");
        return NULL;
    }
    if (!check_plan(plan, true) || !read_base(&base, args[1], &seed))
        return NULL;
    struct step step = {.module = module_state_of(self), .reply = &base};
    PyObject *message = NULL, *order = NULL, *result = NULL;
    put_head(&step);
    if (put_record(&step, plan, args[0]))
        message = put_end(&step, 0, 0, args[2], seed, &check);
    if (message)
        order = next_order(&base);
    if (order)
        result = Py_BuildValue("OO", message, order);
    Py_XDECREF(message);
    Py_XDECREF(order);
    base_free(&base);
    step_free(&step);
    return result;
}

static PyObject *read_reply(const struct plan_object *plan, struct step *step, PyObject *payload,
                            const Py_buffer *message, uint64_t seed, PyObject *loads) {
    struct head head;
    if (!get_head(step, message, &head))
        return NULL;
    if (head.check != check_of(message, seed)) {
        raise_desync(step->module,
                     "a reply of %zd bytes doesn't match the request: it was changed "
                     "on its way, or the two ends have drifted apart",
                     message->len);
        return NULL;
    }
    if (!get_cold(step, payload, &head, loads))
        return NULL;
    PyObject *record = get_record(step, plan);
    if (!record)
        raise_unreadable(step->module, "a reply of %zd bytes can't be read", message->len);
    return record;
}

/* (payload, base, loads) -> (record, order) */
PyObject *plan_decode(PyObject *self, PyObject *const *args, Py_ssize_t n_args) {
    struct reply_base base = {0};
    uint64_t seed;
    Py_buffer message;
    if (n_args != 3) {
        PyErr_SetString(PyExc_TypeError, "decode_reply(payload, base, loads)");
        return NULL;
    }
    if (!check_plan((const struct plan_object *)self, true) || !read_base(&base, args[1], &seed) ||
        PyObject_GetBuffer(args[0], &message, PyBUF_SIMPLE))
        return NULL;
    struct step step = {.module = module_state_of(self), .reply = &base};
    PyObject *order = NULL, *result = NULL;
    PyObject *record =
        read_reply((const struct plan_object *)self, &step, args[0], &message, seed, args[2]);
    if (record)
        order = next_order(&base);
    if (order)
        result = Py_BuildValue("OO", record, order);
    Py_XDECREF(record);
    Py_XDECREF(order);
    base_free(&base);
    step_free(&step);
    PyBuffer_Release(&message);
    return result;
}
