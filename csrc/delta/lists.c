/* Lists of tokens: in every reply one for each request, mostly of one token. */
#include "delta/fields.h"

/* As nearly always: one token in each list. */
static bool read_ones(struct message *message, PyObject *lists, size_t n) {
    int64_t *values = message->scratch.actual.at;
    for (size_t i = 0; i < n; i++) {
        PyObject *list = PyList_GET_ITEM(lists, (Py_ssize_t)i);
        if (!PyList_CheckExact(list) || PyList_GET_SIZE(list) != 1 ||
            !number_of(PyList_GET_ITEM(list, 0), &values[i]))
            return false;
    }
    return true;
}

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
    if (!PyList_CheckExact(value) || PyList_GET_SIZE(value) == 0)
        return UNFIT;
    size_t n = (size_t)PyList_GET_SIZE(value), total = n;
    if (!numbers_reserve(&message->scratch.actual, n))
        return FAILED;
    pack_varint(&message->out, n);
    if (read_ones(message, value, n)) {
        pack_ints(&message->out, &(int64_t){1}, 1); /* equal lengths take the space of one */
    } else {
        enum fit fit = read_lists(message, value, &total);
        if (fit != FITS)
            return fit;
        pack_ints(&message->out, message->scratch.predicted.at, n);
    }
    pack_ints(&message->out, message->scratch.actual.at, total);
    return FITS;
}

/* Whether all lengths are 1: then nothing else of them follows. Skips them if so. */
static bool unpack_ones(struct unpacker *in) {
    static const uint8_t ones[] = {0, 2}; /* as pack_ints() writes equal numbers: width 0, +1 */
    if (in->bad || in->end - in->at < 2 || memcmp(in->at, ones, sizeof ones) != 0)
        return false;
    in->at += sizeof ones;
    return true;
}

/* Tokens are too many to share their ints. */
static PyObject *list_of_one(struct message *message, int64_t value, size_t *checks) {
    return reuse_list_of_one(&message->module->spare_lists, PyLong_FromLong(value), checks);
}

static PyObject *get_ones(struct message *message, size_t n) {
    size_t checks = 2 * n;
    if (!numbers_reserve(&message->scratch.actual, n))
        return NULL;
    unpack_ints(&message->in, message->scratch.actual.at, n);
    PyObject *lists = message->in.bad ? NULL : PyList_New((Py_ssize_t)n);
    for (size_t i = 0; lists && i < n; i++)
        extension_set_item(&lists, i, list_of_one(message, message->scratch.actual.at[i], &checks));
    return lists;
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
    size_t n = unpack_length(&message->in), checks = 2 * n;
    uint64_t left;
    if (n > 0 && unpack_ones(&message->in))
        return get_ones(message, n);
    PyObject *lists = unpack_lists(message, n, &left) ? PyList_New((Py_ssize_t)n) : NULL;
    const int64_t *values = message->scratch.actual.at, *lengths = message->scratch.predicted.at;
    for (size_t i = 0; lists && i < n; i++) {
        uint64_t length = (uint64_t)lengths[i];
        PyObject *list = NULL;
        if (length > left) /* negative lengths can hide in the sum */
            message->in.bad = true;
        else if (length == 1)
            list = list_of_one(message, *values, &checks);
        else
            list = numbers_list(&message->module->ints, values, (size_t)length);
        extension_set_item(&lists, i, list);
        values += length;
        left -= length;
    }
    return lists;
}
