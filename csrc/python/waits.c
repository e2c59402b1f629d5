#include "python/waits.h"

int waits_run(struct strategy *strategy, struct waiting *waiting, const struct waiter *waiter,
              uint64_t deadline_ns) {
    if (!waiting->began && strategy_begin(strategy, waiting, waiter))
        return 1;
    for (;;) {
        enum wait_result result;
        Py_BEGIN_ALLOW_THREADS
        result = strategy_wait(strategy, waiting, waiter, deadline_ns);
        Py_END_ALLOW_THREADS
        if (result == WAIT_READY)
            return 1;
        if (PyErr_CheckSignals() != 0)
            return -1;
        if (result == WAIT_TIMEOUT)
            return 0;
    }
}

bool waits_let_others_run(void) {
    Py_BEGIN_ALLOW_THREADS
    Py_END_ALLOW_THREADS
    return PyErr_CheckSignals() == 0;
}

bool waits_add_counters(PyObject *dict, const _Atomic uint64_t *counters, enum counter first,
                        enum counter last) {
    static const char *const names[N_COUNTERS] = {
        "requests", "replies", "bytes_in", "bytes_out",    "spins",   "yields",
        "parks",    "early",   "late",     "mispredicted", "idle_ns",
    };
    bool added = true;
    for (int i = (int)first; added && i <= (int)last; i++) {
        PyObject *count = PyLong_FromUnsignedLongLong(counters[i]);
        added = count && PyDict_SetItemString(dict, names[i], count) == 0;
        Py_XDECREF(count);
    }
    return added;
}
