#include "python/fork.h"

#include <pthread.h>

#include "extension/extension.h"

unsigned fork_generation;

static void count_fork(void) {
    fork_generation++;
}

bool fork_count(void) {
    static bool counts;
    if (!counts)
        counts = pthread_atfork(NULL, NULL, count_fork) == 0;
    return counts;
}

bool fork_check(unsigned generation) {
    if (generation == fork_generation)
        return true;
    return PyErr_Format(
        PyExc_RuntimeError,
        "this process was forked after the ring was mapped, and has no mapping of it: "
        "start processes with the spawn method");
}
