#include "python/waits.h"

struct wait_counts waits_counts(struct status_line *line, _Atomic uint64_t *own) {
    if (!line)
        return (struct wait_counts){&own[0], &own[1], &own[2], &own[3], &own[4], &own[5]};
    return (struct wait_counts){&line->spins, &line->yields, &line->parks,
                                &line->early, &line->late,   &line->mispredicted};
}

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

PyObject *waits_counts_dict(const struct wait_counts *counts) {
    return Py_BuildValue(
        "{s:K,s:K,s:K,s:K,s:K,s:K}", "spins", (unsigned long long)*counts->spins, "yields",
        (unsigned long long)*counts->yields, "parks", (unsigned long long)*counts->parks, "early",
        (unsigned long long)*counts->early, "late", (unsigned long long)*counts->late,
        "mispredicted", (unsigned long long)*counts->mispredicted);
}
