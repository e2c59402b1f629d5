#include "extension/extension.h"

/* Signals' handlers, for which a wait lets itself be interrupted, are called in the main
 * interpreter only. CPython itself refuses just those subinterpreters that have a lock of their
 * own. */
static bool check_interpreter(void) {
    if (PyInterpreterState_Get() == PyInterpreterState_Main())
        return true;
    PyErr_SetString(PyExc_ImportError, "mpspmd works in a process's main interpreter only: start "
                                       "another process instead of a subinterpreter");
    return false;
}

/* A free-threaded CPython takes its lock back for a module that needs it, unless it was told not
 * to. The flags that say that an object is in use, and all containers that are read here, rely on
 * the lock. */
static bool check_lock(void) {
    PyObject *is_enabled = PySys_GetObject("_is_gil_enabled"); /* from CPython 3.13 on */
    PyObject *enabled = is_enabled ? PyObject_CallNoArgs(is_enabled) : Py_NewRef(Py_True);
    int answer = enabled ? PyObject_IsTrue(enabled) : -1;
    Py_XDECREF(enabled);
    if (answer == 0)
        PyErr_SetString(PyExc_ImportError, "mpspmd needs the global interpreter lock: start Python "
                                           "without PYTHON_GIL=0 and without -X gil=0");
    return answer > 0;
}

bool extension_check(void) {
    return check_interpreter() && check_lock();
}

bool extension_add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **type) {
    *type = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    return *type && PyModule_AddType(module, *type) == 0;
}

bool extension_find_error(const char *name, PyObject **error) {
    PyObject *errors = PyImport_ImportModule("mpspmd.errors");
    *error = errors ? PyObject_GetAttrString(errors, name) : NULL;
    Py_XDECREF(errors);
    return *error != NULL;
}
