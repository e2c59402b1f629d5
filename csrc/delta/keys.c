/* A request's keys, as edits of an earlier order; and single keys that have a row. */
#include "delta/fields.h"
#include "delta/plain.h"

/* Where in `order`, from `i` on, the first row is that hasn't ended. */
static size_t first_alive(const struct rows *rows, const struct slots *order, size_t i) {
    while (i < order->n && !rows->keys[order->at[i]])
        i++;
    return i;
}

/* As rows_find(), but first compares the key with the one at `*next` in `order`: most keys follow
 * each other as in an earlier order, so the dict is seldom asked. */
static int64_t find_next(const struct rows *rows, const struct slots *order, size_t *next,
                         PyObject *key) {
    enum { SKIPPED = 8 }; /* how many rows may be left out at a time */
    size_t i = first_alive(rows, order, *next);
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

enum fit keys_put_unknown(struct message *message, PyObject *list, const struct slots *order,
                          struct slots *slots) {
    Py_ssize_t n = PyList_GET_SIZE(list), length;
    const char *text;
    size_t next = 0;
    if (!rows_resize_slots(slots, (size_t)n))
        return FAILED;
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *key = PyList_GET_ITEM(list, i);
        if (!PyUnicode_CheckExact(key))
            return UNFIT;
        int64_t slot = find_next(message->rows, order, &next, key);
        if (slot == -2)
            return FAILED;
        if (slot == -1 && !plain_text_of(key, &length))
            return UNFIT;
        slots->at[i] = slot < 0 ? UINT32_MAX : (uint32_t)slot;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        if (slots->at[i] != UINT32_MAX)
            continue;
        PyObject *key = PyList_GET_ITEM(list, i);
        int64_t slot = rows_find(message->rows, key); /* it may have come twice */
        if (slot == -1) {
            slot = rows_add(message->rows, key);
            text = plain_text_of(key, &length);
            pack_varint(&message->out, (uint64_t)length + 1);
            pack_bytes(&message->out, text, (size_t)length);
        }
        if (slot < 0)
            return FAILED;
        slots->at[i] = (uint32_t)slot;
    }
    pack_byte(&message->out, 0);
    return FITS;
}

/* The earlier order that begins with the same key, ended rows aside; or else the newest. */
static const struct slots *likely_order(const struct rows *rows, PyObject *list) {
    for (int place = 0; place < N_ORDERS; place++) {
        const struct slots *slots = &rows->orders[place]->slots;
        size_t i = first_alive(rows, slots, 0);
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
    if (rows_same_items(list, keys))
        return 1;
    /* An object that isn't a str may be equal to one, and its comparison may run any code. */
    if (PyList_GET_SIZE(list) != PyList_GET_SIZE(keys) || !are_texts(list))
        return 0;
    return PyObject_RichCompareBool(list, keys, Py_EQ);
}

/* Finds the remembered order that has the same keys; its place goes into message->keys_place. */
static enum fit find_order(struct message *message, PyObject *list) {
    for (int place = 0; place < N_ORDERS; place++) {
        const struct order *order = message->rows->orders[place];
        if (!order->keys)
            continue;
        int same = same_keys(list, order->keys);
        if (same < 0)
            return FAILED;
        message->keys_place = place;
        if (same)
            return rows_copy_slots(&message->keys, &order->slots) ? FITS : FAILED;
    }
    return UNFIT;
}

enum fit keys_put(struct message *message, PyObject *value, enum field_kind Py_UNUSED(kind)) {
    if (!PyList_CheckExact(value) || PyList_GET_SIZE(value) == 0)
        return UNFIT;
    struct rows *rows = message->rows;
    enum fit found = find_order(message, value);
    if (found == FITS) {
        pack_byte(&message->out, 0); /* no unknown keys */
    } else if (found == UNFIT) {
        found = keys_put_unknown(message, value, likely_order(rows, value), &message->keys);
        if (found == FITS)
            message->keys_place = nearest_order(rows, &message->keys);
    }
    if (found != FITS) {
        message->keys.n = 0;
        return found;
    }
    pack_varint(&message->out, (uint64_t)message->keys_place);
    if (!pack_edits(&message->out, &rows->orders[message->keys_place]->slots, &message->keys))
        message->keys_place = -1;
    return FITS;
}

enum fit keys_put_one(struct message *message, PyObject *value, enum field_kind Py_UNUSED(kind)) {
    int64_t slot = PyUnicode_CheckExact(value) ? rows_find(message->rows, value) : -1;
    if (slot < 0)
        return slot == -1 ? UNFIT : FAILED;
    pack_varint(&message->out, (uint64_t)slot);
    return FITS;
}

bool keys_get_unknown(struct message *message) {
    size_t length;
    while ((length = unpack_length(&message->in)) > 0) {
        PyObject *key = plain_get_text(message, length - 1);
        int64_t slot = key ? rows_add(message->rows, key) : -1;
        Py_XDECREF(key);
        if (slot < 0)
            return false;
    }
    return !message->in.bad;
}

PyObject *keys_get(struct message *message, enum field_kind Py_UNUSED(kind)) {
    struct rows *rows = message->rows;
    if (!keys_get_unknown(message))
        return NULL;
    uint64_t place = unpack_varint(&message->in);
    if (message->in.bad || place >= N_ORDERS)
        return message_bad(message);
    struct order *order = rows->orders[place];
    bool same = unpack_edits(&message->in, &order->slots, &message->keys);
    message->keys_place = same ? (int)place : -1;
    bool known = same && order->keys;
    if (message->in.bad || (!known && !rows_alive(rows, &message->keys)))
        return message_bad(message);
    if (!same)
        return rows_keys(rows, &message->keys);
    if (!order->keys && !(order->keys = rows_keys(rows, &order->slots)))
        return NULL;
    return PyList_GetSlice(order->keys, 0, PyList_GET_SIZE(order->keys));
}

/* The row's own object, which a reply's comparison with the rows' keys finds sooner. */
PyObject *keys_get_one(struct message *message, enum field_kind Py_UNUSED(kind)) {
    PyObject *key = rows_key(message->rows, unpack_varint(&message->in));
    return key ? Py_NewRef(key) : message_bad(message);
}
