/* Lists of tokens: in every reply one for each request, mostly of one token. */
#include "delta.h"

/* As nearly always: one token in each. */
static bool are_ones(PyObject *lists, int64_t *ints, Py_ssize_t n) {
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *list = PyList_GET_ITEM(lists, i);
        if (!PyList_CheckExact(list) || PyList_GET_SIZE(list) != 1 ||
            !int_of(PyList_GET_ITEM(list, 0), &ints[i]))
            return false;
    }
    return true;
}

/* All ints one after the other into step->actual, and each list's length into step->predicted. */
static enum fit read_lists(struct step *step, PyObject *lists, Py_ssize_t n, size_t *total) {
    *total = 0;
    if (!ints_reserve(&step->predicted, (size_t)n))
        return FAILED;
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *list = PyList_GET_ITEM(lists, i);
        if (!PyList_CheckExact(list))
            return UNFIT;
        Py_ssize_t length = PyList_GET_SIZE(list);
        if (!ints_reserve(&step->actual, *total + (size_t)length))
            return FAILED;
        if (!ints_of(list, step->actual.at + *total, length))
            return UNFIT;
        step->predicted.at[i] = length;
        *total += (size_t)length;
    }
    return FITS;
}

enum fit put_lists(struct step *step, PyObject *value) {
    if (!PyList_CheckExact(value) || PyList_GET_SIZE(value) == 0)
        return UNFIT;
    Py_ssize_t n = PyList_GET_SIZE(value);
    size_t total = (size_t)n;
    if (!ints_reserve(&step->actual, (size_t)n))
        return FAILED;
    pack_varint(&step->out, (uint64_t)n);
    if (are_ones(value, step->actual.at, n)) {
        pack_ones(&step->out);
    } else {
        enum fit fit = read_lists(step, value, n, &total);
        if (fit != FITS)
            return fit;
        pack_ints(&step->out, step->predicted.at, (size_t)n);
    }
    pack_ints(&step->out, step->actual.at, total);
    return FITS;
}

static PyObject *get_ones(struct step *step, size_t n) {
    size_t looks = 2 * n;
    if (!ints_reserve(&step->actual, n))
        return NULL;
    unpack_ints(&step->in, step->actual.at, n);
    PyObject *lists = step->in.bad ? NULL : PyList_New((Py_ssize_t)n);
    for (size_t i = 0; lists && i < n; i++) {
        /* Tokens are too many to be shared. */
        PyObject *list = list_of_one(step->module, PyLong_FromLong(step->actual.at[i]), &looks);
        if (!list)
            Py_CLEAR(lists);
        else
            PyList_SET_ITEM(lists, (Py_ssize_t)i, list);
    }
    return lists;
}

static bool unpack_lists(struct step *step, size_t n, uint64_t *total) {
    *total = 0;
    if (step->in.bad || !ints_reserve(&step->predicted, n))
        return false;
    unpack_ints(&step->in, step->predicted.at, n);
    for (size_t i = 0; i < n; i++)
        *total += (uint64_t)step->predicted.at[i];
    if (step->in.bad || *total > MAX_LIST)
        step->in.bad = true;
    else if (ints_reserve(&step->actual, (size_t)*total))
        unpack_ints(&step->in, step->actual.at, (size_t)*total);
    return !step->in.bad && !PyErr_Occurred();
}

PyObject *get_lists(struct step *step) {
    size_t n = unpack_length(&step->in);
    uint64_t total;
    if (n > 0 && unpack_ones(&step->in))
        return get_ones(step, n);
    size_t looks = 2 * n;
    PyObject *lists = unpack_lists(step, n, &total) ? PyList_New((Py_ssize_t)n) : NULL;
    const int64_t *values = step->actual.at;
    for (size_t i = 0; lists && i < n; i++) {
        uint64_t length = (uint64_t)step->predicted.at[i];
        PyObject *list = NULL;
        if (length == 1 && total > 0)
            list = list_of_one(step->module, PyLong_FromLong(*values), &looks);
        else if (length <= total)
            list = int_list(step->module, values, (size_t)length);
        else
            step->in.bad = true;
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
