/* What is handed out again, because whoever had it has let go of it: to the next one it is new.
 *
 * What a user has put into it stays until it is looked at for the next message. */
#include "delta.h"

/* A list of one int; or a tuple of such a list, which can't be changed but by its list. */
static PyObject *list_within(PyObject *object) {
    return PyTuple_CheckExact(object) ? PyTuple_GET_ITEM(object, 0) : object;
}

static bool is_unused(PyObject *list) {
    return Py_REFCNT(list) == 1 && PyList_GET_SIZE(list) == 1 &&
           PyLong_CheckExact(PyList_GET_ITEM(list, 0));
}

/* One that is free, after at most `*looks` looks; where the last search ended, the oldest are. */
static PyObject *spare_object(struct spare_objects *spare, size_t *looks) {
    while (*looks > 0 && spare->n > 0) {
        --*looks;
        size_t at = spare->next < spare->n ? spare->next : 0;
        PyObject *object = spare->objects[at];
        spare->next = at + 1;
        if (Py_REFCNT(object) > 1)
            continue;
        if (is_unused(list_within(object)))
            return Py_NewRef(object);
        /* Its last user has kept its list, or left something else in it, whose end may do
         * anything. */
        spare->objects[at] = spare->objects[--spare->n];
        Py_DECREF(object);
    }
    return NULL;
}

static void keep_spare(struct spare_objects *spare, PyObject *object) {
    if (spare->n < SPARE_OBJECTS)
        spare->objects[spare->n++] = Py_NewRef(object);
}

static PyObject *new_list(PyObject *number) {
    PyObject *list = PyList_New(1);
    if (list)
        PyList_SET_ITEM(list, 0, Py_NewRef(number));
    return list;
}

static PyObject *new_group(PyObject *number) {
    PyObject *list = new_list(number);
    PyObject *group = list ? PyTuple_Pack(1, list) : NULL;
    Py_XDECREF(list);
    return group;
}

static inline PyObject *object_of_one(struct spare_objects *spare, PyObject *number, size_t *looks,
                                      PyObject *make(PyObject *)) {
    if (!number)
        return NULL;
    PyObject *object = spare_object(spare, looks);
    if (object) {
        PyObject *list = list_within(object), *old = PyList_GET_ITEM(list, 0);
        PyList_SET_ITEM(list, 0, number);
        Py_DECREF(old);
        return object;
    }
    object = make(number);
    Py_DECREF(number);
    if (object)
        keep_spare(spare, object);
    return object;
}

PyObject *list_of_one(struct module_state *module, PyObject *number, size_t *looks) {
    return object_of_one(&module->spare_lists, number, looks, new_list);
}

PyObject *group_of_one(struct module_state *module, PyObject *number, size_t *looks) {
    return object_of_one(&module->spare_groups, number, looks, new_group);
}

void free_spare_objects(struct spare_objects *spare) {
    while (spare->n > 0) {
        PyObject *object = spare->objects[--spare->n];
        Py_DECREF(object);
    }
}

int visit_spare_objects(const struct spare_objects *spare, visitproc visit, void *arg) {
    for (size_t i = 0; i < spare->n; i++)
        Py_VISIT(spare->objects[i]);
    return 0;
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
