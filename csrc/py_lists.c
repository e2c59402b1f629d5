/* Lists of tokens: in every reply a new one for each request, mostly of one token.
 *
 * New to whoever gets it: a list of an earlier reply that nobody else has any more, with one int in
 * it, is given that reply's successor. So no memory is looked for, and the garbage collector isn't
 * woken by a thousand new lists a step. */
#include "delta.h"

/* One that is free, after at most `*looks` looks; where the last search ended, the oldest are. */
static PyObject *spare_list(struct spare_lists *spare, size_t *looks) {
    while (*looks > 0 && spare->n > 0) {
        --*looks;
        size_t at = spare->next < spare->n ? spare->next : 0;
        PyObject *list = spare->lists[at];
        spare->next = at + 1;
        if (Py_REFCNT(list) > 1)
            continue;
        if (PyList_GET_SIZE(list) == 1 && PyLong_CheckExact(PyList_GET_ITEM(list, 0)))
            return Py_NewRef(list);
        /* Its last user has left something else in it, whose end may do anything. */
        spare->lists[at] = spare->lists[--spare->n];
        Py_DECREF(list);
    }
    return NULL;
}

static PyObject *list_of_one(struct spare_lists *spare, int64_t value, size_t *looks) {
    PyObject *number = PyLong_FromLong(value); /* tokens are too many to be shared */
    PyObject *list = number ? spare_list(spare, looks) : NULL;
    if (list) {
        Py_DECREF(PyList_GET_ITEM(list, 0));
    } else if (number && (list = PyList_New(1))) {
        if (spare->n < SPARE_LISTS)
            spare->lists[spare->n++] = Py_NewRef(list);
    }
    if (list)
        PyList_SET_ITEM(list, 0, number);
    else
        Py_XDECREF(number);
    return list;
}

void free_spare_lists(struct spare_lists *spare) {
    while (spare->n > 0) {
        PyObject *list = spare->lists[--spare->n];
        Py_DECREF(list);
    }
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
    size_t n = unpack_length(&step->in), looks = 2 * n;
    uint64_t total;
    PyObject *lists = unpack_lists(step, n, &total) ? PyList_New((Py_ssize_t)n) : NULL;
    const int64_t *values = step->actual.at;
    for (size_t i = 0; lists && i < n; i++) {
        size_t length = (size_t)step->predicted.at[i];
        PyObject *list = NULL;
        if (length == 1 && total > 0)
            list = list_of_one(&step->module->spare_lists, *values, &looks);
        else if (length <= total)
            list = int_list(step->module, values, length);
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
