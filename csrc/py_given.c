/* What is handed out again, because whoever had it has let go of it: to the next one it is new.
 *
 * What a user has put into it stays until it is looked at for the next message. */
#include "delta.h"

/* Lists lie anywhere: with thousands of them, each of their three parts would be waited for. */
static inline void fetch_ahead(const struct spare_lists *spare, size_t at) {
    if (at + 16 >= spare->n)
        return;
    __builtin_prefetch(spare->lists[at + 16]);
    __builtin_prefetch(PySequence_Fast_ITEMS(spare->lists[at + 8]));
    if (PyList_GET_SIZE(spare->lists[at + 4]) > 0)
        __builtin_prefetch(PyList_GET_ITEM(spare->lists[at + 4], 0));
}

/* A list that is free, after at most `*looks` looks; where the last search ended, the oldest are.
 */
static PyObject *spare_list(struct spare_lists *spare, size_t *looks) {
    while (*looks > 0 && spare->n > 0) {
        --*looks;
        size_t at = spare->next < spare->n ? spare->next : 0;
        PyObject *list = spare->lists[at];
        spare->next = at + 1;
        fetch_ahead(spare, at);
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

PyObject *list_of_one(struct module_state *module, PyObject *number, size_t *looks) {
    struct spare_lists *spare = &module->spare_lists;
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

/* CPython 3.11 to 3.13 give a dict another number with each change of it: no two of them, of all
 * dicts together, are the same. */
#if PY_VERSION_HEX < 0x030E0000
static bool find_version(PyObject *dict, uint64_t *version) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
    *version = ((PyDictObject *)dict)->ma_version_tag;
#pragma GCC diagnostic pop
    return true;
}
#else
static bool find_version(PyObject *Py_UNUSED(dict), uint64_t *Py_UNUSED(version)) {
    return false;
}
#endif

static bool is_back(const struct given *given) {
    return given->object && Py_REFCNT(given->object) == 1;
}

PyObject *give_list(struct given *given, PyObject *list) {
    if (is_back(given) && same_items(given->object, list))
        return Py_NewRef(given->object);
    PyObject *copy = PyList_GetSlice(list, 0, PyList_GET_SIZE(list));
    if (copy)
        replace_object(&given->object, Py_NewRef(copy));
    return copy;
}

PyObject *give_dict(struct given *given, PyObject *dict) {
    uint64_t version;
    if (is_back(given) && find_version(given->object, &version) && version == given->version)
        return Py_NewRef(given->object);
    PyObject *copy = PyDict_Copy(dict);
    if (copy && find_version(copy, &given->version))
        replace_object(&given->object, Py_NewRef(copy));
    return copy;
}
