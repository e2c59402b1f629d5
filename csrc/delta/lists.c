#include "delta/lists.h"

/* As nearly always: one token in each. */
static bool are_ones(PyObject *lists, int64_t *ints, Py_ssize_t n) {
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *list = PyList_GET_ITEM(lists, i);
        if (!PyList_CheckExact(list) || PyList_GET_SIZE(list) != 1 ||
            !number_of(PyList_GET_ITEM(list, 0), &ints[i]))
            return false;
    }
    return true;
}

/* All ints one after the other into message->scratch.actual, and each list's length into
 * message->scratch.predicted. */
static enum fit read_lists(struct message *message, PyObject *lists, Py_ssize_t n, size_t *total) {
    *total = 0;
    if (!numbers_reserve(&message->scratch.predicted, (size_t)n))
        return FAILED;
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *list = PyList_GET_ITEM(lists, i);
        if (!PyList_CheckExact(list))
            return UNFIT;
        Py_ssize_t length = PyList_GET_SIZE(list);
        if (!numbers_reserve(&message->scratch.actual, *total + (size_t)length))
            return FAILED;
        if (!numbers_of(list, message->scratch.actual.at + *total, length))
            return UNFIT;
        message->scratch.predicted.at[i] = length;
        *total += (size_t)length;
    }
    return FITS;
}

enum fit lists_put(struct message *message, PyObject *value) {
    if (!PyList_CheckExact(value) || PyList_GET_SIZE(value) == 0)
        return UNFIT;
    Py_ssize_t n = PyList_GET_SIZE(value);
    size_t total = (size_t)n;
    if (!numbers_reserve(&message->scratch.actual, (size_t)n))
        return FAILED;
    pack_varint(&message->out, (uint64_t)n);
    if (are_ones(value, message->scratch.actual.at, n)) {
        pack_ones(&message->out);
    } else {
        enum fit fit = read_lists(message, value, n, &total);
        if (fit != FITS)
            return fit;
        pack_ints(&message->out, message->scratch.predicted.at, (size_t)n);
    }
    pack_ints(&message->out, message->scratch.actual.at, total);
    return FITS;
}

static PyObject *get_ones(struct message *message, size_t n) {
    size_t checks = 2 * n;
    if (!numbers_reserve(&message->scratch.actual, n))
        return NULL;
    unpack_ints(&message->in, message->scratch.actual.at, n);
    PyObject *lists = message->in.bad ? NULL : PyList_New((Py_ssize_t)n);
    for (size_t i = 0; lists && i < n; i++) {
        /* Tokens are too many to be shared. */
        PyObject *list = reuse_list_of_one(&message->module->spare_lists,
                                           PyLong_FromLong(message->scratch.actual.at[i]), &checks);
        if (!list)
            Py_CLEAR(lists);
        else
            PyList_SET_ITEM(lists, (Py_ssize_t)i, list);
    }
    return lists;
}

static bool unpack_lists(struct message *message, size_t n, uint64_t *total) {
    *total = 0;
    if (message->in.bad || !numbers_reserve(&message->scratch.predicted, n))
        return false;
    unpack_ints(&message->in, message->scratch.predicted.at, n);
    for (size_t i = 0; i < n; i++)
        *total += (uint64_t)message->scratch.predicted.at[i];
    if (message->in.bad || *total > MAX_LIST)
        message->in.bad = true;
    else if (numbers_reserve(&message->scratch.actual, (size_t)*total))
        unpack_ints(&message->in, message->scratch.actual.at, (size_t)*total);
    return !message->in.bad && !PyErr_Occurred();
}

PyObject *lists_get(struct message *message) {
    size_t n = unpack_length(&message->in);
    uint64_t total;
    if (n > 0 && unpack_ones(&message->in))
        return get_ones(message, n);
    size_t checks = 2 * n;
    PyObject *lists = unpack_lists(message, n, &total) ? PyList_New((Py_ssize_t)n) : NULL;
    const int64_t *values = message->scratch.actual.at;
    for (size_t i = 0; lists && i < n; i++) {
        uint64_t length = (uint64_t)message->scratch.predicted.at[i];
        PyObject *list = NULL;
        if (length == 1 && total > 0)
            list =
                reuse_list_of_one(&message->module->spare_lists, PyLong_FromLong(*values), &checks);
        else if (length <= total)
            list = numbers_list(&message->module->ints, values, (size_t)length);
        else
            message->in.bad = true;
        if (!list) {
            Py_CLEAR(lists);
            break;
        }
        PyList_SET_ITEM(lists, (Py_ssize_t)i, list);
        values += length;
        total -= length;
    }
    return lists;
}

const struct codec lists_codec = {lists_put, lists_get};
