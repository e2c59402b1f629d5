/* What both extension modules need of CPython (3.11 and later, mostly its public API). Compiled
 * into each; the modules share no state. */
#ifndef MPSPMD_EXTENSION_EXTENSION_H
#define MPSPMD_EXTENSION_EXTENSION_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>
#include <structmember.h>

/* For a module's execution slot: false with an ImportError set in a subinterpreter, and where the
 * interpreter runs without its lock. */
bool extension_check(void);

/* A type of the module, also as its attribute; likewise a class of mpspmd.errors. False with an
 * exception set. */
bool extension_add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **type);
bool extension_find_error(const char *name, PyObject **error);

/* The slots of a module whose execution slot is `exec`. */
#ifdef Py_mod_multiple_interpreters
#define EXTENSION_INTERPRETERS                                                                     \
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#else
#define EXTENSION_INTERPRETERS
#endif
#ifdef Py_mod_gil
#define EXTENSION_LOCK {Py_mod_gil, Py_MOD_GIL_USED},
#else
#define EXTENSION_LOCK
#endif
#define EXTENSION_SLOTS(exec)                                                                      \
    {                                                                                              \
        {Py_mod_exec, exec}, EXTENSION_INTERPRETERS EXTENSION_LOCK {                               \
            0, NULL                                                                                \
        }                                                                                          \
    }

static inline void extension_replace(PyObject **place, PyObject *object) {
    PyObject *old = *place;
    *place = object;
    Py_XDECREF(old);
}

/* Sets an item of a new list, and takes over its reference. If `item` is NULL, with an exception
 * set or not, drops the list. */
static inline void extension_set_item(PyObject **list, size_t i, PyObject *item) {
    if (item)
        PyList_SET_ITEM(*list, (Py_ssize_t)i, item);
    else
        Py_CLEAR(*list);
}

/* The end of a type's tp_dealloc. */
static inline void extension_free(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

#endif
