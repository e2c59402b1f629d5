/* Tuples of lists of ids: of the memory blocks that rows get. */
#include "delta/fields.h"

/* As the difference from the last id: blocks that are handed out together tend to be neighbours.
 * False if it is no int. */
static bool put_id(struct packer *out, PyObject *number, int64_t *last) {
    int64_t id;
    if (!number_of(number, &id))
        return false;
    pack_signed(out, (int64_t)((uint64_t)id - (uint64_t)*last));
    *last = id;
    return true;
}

static bool put_lists_of(struct packer *out, PyObject *lists, int64_t *last) {
    if (!PyTuple_CheckExact(lists))
        return false;
    Py_ssize_t n_lists = PyTuple_GET_SIZE(lists);
    pack_varint(out, (uint64_t)n_lists);
    for (Py_ssize_t i = 0; i < n_lists; i++) {
        PyObject *list = PyTuple_GET_ITEM(lists, i);
        if (!PyList_CheckExact(list))
            return false;
        Py_ssize_t n = PyList_GET_SIZE(list);
        pack_varint(out, (uint64_t)n);
        for (Py_ssize_t j = 0; j < n; j++)
            if (!put_id(out, PyList_GET_ITEM(list, j), last))
                return false;
    }
    return true;
}

/* The int in a tuple of one list of one int, which is what most requests get; or NULL. */
static PyObject *only_int(PyObject *lists) {
    if (!PyTuple_CheckExact(lists) || PyTuple_GET_SIZE(lists) != 1)
        return NULL;
    PyObject *list = PyTuple_GET_ITEM(lists, 0);
    return PyList_CheckExact(list) && PyList_GET_SIZE(list) == 1 ? PyList_GET_ITEM(list, 0) : NULL;
}

enum fit groups_put(struct message *message, PyObject *value, enum field_kind Py_UNUSED(kind)) {
    Py_ssize_t n = (Py_ssize_t)message->keys.n, next = 0;
    if (!PyList_CheckExact(value) || PyList_GET_SIZE(value) != n || n == 0)
        return UNFIT;
    PyObject *const none = Py_None;
    int64_t last = 0;
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *lists = PyList_GET_ITEM(value, i);
        if (lists == none)
            continue;
        PyObject *only = only_int(lists);
        /* The gap + 1, because 0 ends the groups. The lowest bit: this is no single int. */
        pack_varint(&message->out, ((uint64_t)(i - next) + 1) << 1 | !only);
        if (only ? !put_id(&message->out, only, &last) : !put_lists_of(&message->out, lists, &last))
            return UNFIT;
        next = i + 1;
    }
    pack_byte(&message->out, 0);
    return FITS;
}

enum fit groups_put_one(struct message *message, PyObject *value, enum field_kind Py_UNUSED(kind)) {
    return put_lists_of(&message->out, value, &(int64_t){0}) ? FITS : UNFIT;
}

static PyObject *get_id(struct message *message, int64_t *last) {
    *last = (int64_t)((uint64_t)*last + (uint64_t)unpack_signed(&message->in));
    return PyLong_FromLong(*last); /* ids seldom repeat, and a new int is in the cache */
}

static PyObject *get_only_int(struct message *message, int64_t *last, size_t *checks) {
    PyObject *list =
        reuse_list_of_one(&message->module->spare_lists, get_id(message, last), checks);
    PyObject *lists = list ? PyTuple_Pack(1, list) : NULL;
    Py_XDECREF(list);
    return lists;
}

static PyObject *get_ids(struct message *message, int64_t *last) {
    size_t n = unpack_length(&message->in);
    if (n > (size_t)(message->in.end - message->in.at))
        return message_bad(message);
    PyObject *list = PyList_New((Py_ssize_t)n);
    for (size_t i = 0; list && i < n; i++)
        extension_set_item(&list, i, get_id(message, last));
    return list;
}

static PyObject *get_lists_of(struct message *message, int64_t *last) {
    size_t n_lists = unpack_length(&message->in);
    if (n_lists > (size_t)(message->in.end - message->in.at))
        return message_bad(message);
    PyObject *lists = PyTuple_New((Py_ssize_t)n_lists);
    for (size_t i = 0; lists && i < n_lists; i++) {
        PyObject *list = get_ids(message, last);
        if (list)
            PyTuple_SET_ITEM(lists, (Py_ssize_t)i, list);
        else
            Py_CLEAR(lists);
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

PyObject *groups_get(struct message *message, enum field_kind Py_UNUSED(kind)) {
    size_t n = message->keys.n, next = 0, checks = 2 * n;
    uint64_t code;
    int64_t last = 0;
    PyObject *list = nones(n);
    while (list && (code = unpack_varint(&message->in)) > 0) {
        uint64_t gap = code >> 1;
        PyObject *lists = NULL;
        if (gap > 0 && gap <= n - next)
            lists = code & 1 ? get_lists_of(message, &last) : get_only_int(message, &last, &checks);
        next += (size_t)gap;
        if (!lists) {
            message->in.bad = true;
            Py_CLEAR(list);
        } else {
            PyList_SetItem(list, (Py_ssize_t)next - 1, lists);
        }
    }
    return list;
}

PyObject *groups_get_one(struct message *message, enum field_kind Py_UNUSED(kind)) {
    return get_lists_of(message, &(int64_t){0});
}
