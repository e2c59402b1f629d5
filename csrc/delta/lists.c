/* Lists of tokens: in every reply one for each request, mostly of one token. */
#include "delta/fields.h"

/* Reads all ints one after the other into message->scratch.actual, and the lists' lengths into
 * message->scratch.predicted. */
static enum fit read_lists(struct message *message, PyObject *lists, size_t *total) {
    struct ints *values = &message->scratch.actual, *lengths = &message->scratch.predicted;
    size_t n = (size_t)PyList_GET_SIZE(lists), end = 0;
    if (!numbers_reserve(lengths, n))
        return FAILED;
    for (size_t i = 0; i < n; i++) {
        PyObject *list = PyList_GET_ITEM(lists, (Py_ssize_t)i);
        if (!PyList_CheckExact(list))
            return UNFIT;
        Py_ssize_t length = PyList_GET_SIZE(list);
        if (end + (size_t)length > values->capacity &&
            !numbers_reserve(values, end + (size_t)length))
            return FAILED;
        if (!numbers_of(list, values->at + end, length))
            return UNFIT;
        lengths->at[i] = length;
        end += (size_t)length;
    }
    *total = end;
    return FITS;
}

enum fit lists_put(struct message *message, PyObject *value, enum field_kind Py_UNUSED(kind)) {
    size_t total;
    if (!PyList_CheckExact(value) || PyList_GET_SIZE(value) == 0)
        return UNFIT;
    enum fit fit = read_lists(message, value, &total);
    if (fit != FITS)
        return fit;
    size_t n = (size_t)PyList_GET_SIZE(value);
    pack_varint(&message->out, n);
    pack_ints(&message->out, message->scratch.predicted.at, n);
    pack_ints(&message->out, message->scratch.actual.at, total);
    return FITS;
}

/* As read_lists() has them. False with an exception set, or with message->in.bad. */
static bool unpack_lists(struct message *message, size_t n, uint64_t *total) {
    struct ints *values = &message->scratch.actual, *lengths = &message->scratch.predicted;
    *total = 0;
    if (message->in.bad || !numbers_reserve(lengths, n))
        return false;
    unpack_ints(&message->in, lengths->at, n);
    for (size_t i = 0; i < n; i++)
        *total += (uint64_t)lengths->at[i];
    if (*total > MAX_LIST)
        message->in.bad = true;
    if (message->in.bad || !numbers_reserve(values, (size_t)*total))
        return false;
    unpack_ints(&message->in, values->at, (size_t)*total);
    return !message->in.bad;
}

PyObject *lists_get(struct message *message, enum field_kind Py_UNUSED(kind)) {
    struct module_state *module = message->module;
    size_t n = unpack_length(&message->in), checks = 2 * n;
    uint64_t left;
    PyObject *lists = unpack_lists(message, n, &left) ? PyList_New((Py_ssize_t)n) : NULL;
    const int64_t *values = message->scratch.actual.at, *lengths = message->scratch.predicted.at;
    for (size_t i = 0; lists && i < n; i++) {
        uint64_t length = (uint64_t)lengths[i];
        PyObject *list = NULL;
        if (length > left) /* negative lengths can hide in the sum */
            message->in.bad = true;
        else if (length == 1) /* tokens are too many to share their ints */
            list = reuse_list_of_one(&module->spare_lists, PyLong_FromLong(*values), &checks);
        else
            list = numbers_list(&module->ints, values, (size_t)length);
        if (list)
            PyList_SET_ITEM(lists, (Py_ssize_t)i, list);
        else
            Py_CLEAR(lists);
        values += length;
        left -= length;
    }
    return lists;
}
