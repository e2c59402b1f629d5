#include "delta/reuse.h"

/* Thousands of lists aren't in the cache: without this, each of their three parts would be a miss.
 */
static inline void fetch_ahead(const struct spare_lists *spare, size_t at) {
    if (at + 16 >= spare->n)
        return;
    __builtin_prefetch(spare->lists[at + 16]);
    __builtin_prefetch(PySequence_Fast_ITEMS(spare->lists[at + 8]));
    if (PyList_GET_SIZE(spare->lists[at + 4]) > 0)
        __builtin_prefetch(PyList_GET_ITEM(spare->lists[at + 4], 0));
}

/* A free list, or NULL after `*checks` checks. Begins after the list that it checked last: that one
 * was handed out latest, so the next one is the likeliest to be free. */
static PyObject *spare_list(struct spare_lists *spare, size_t *checks) {
    while (*checks > 0 && spare->n > 0) {
        --*checks;
        size_t at = spare->next < spare->n ? spare->next : 0;
        PyObject *list = spare->lists[at];
        spare->next = at + 1;
        fetch_ahead(spare, at);
        if (Py_REFCNT(list) > 1)
            continue;
        if (PyList_GET_SIZE(list) == 1 && PyLong_CheckExact(PyList_GET_ITEM(list, 0)))
            return Py_NewRef(list);
        /* Its last user has left something else in it, whose destructor may run any code. */
        spare->lists[at] = spare->lists[--spare->n];
        Py_DECREF(list);
    }
    return NULL;
}

PyObject *reuse_list_of_one(struct spare_lists *spare, PyObject *number, size_t *checks) {
    PyObject *list = number ? spare_list(spare, checks) : NULL;
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

void reuse_free(struct spare_lists *spare) {
    while (spare->n > 0) {
        PyObject *list = spare->lists[--spare->n];
        Py_DECREF(list);
    }
}
