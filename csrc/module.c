/* mpspmd._native: the ring, its waiting and the status page, for Python. */
#include "delta.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>

unsigned fork_generation;

static void count_fork(void) {
    fork_generation++;
}

struct module_state *module_state_of(PyObject *self) {
    return PyType_GetModuleState(Py_TYPE(self));
}

bool check_generation(unsigned generation) {
    if (generation == fork_generation)
        return true;
    PyErr_SetString(PyExc_RuntimeError,
                    "this process was forked after the ring was mapped, and has no mapping of it: "
                    "start processes with the spawn method");
    return false;
}

void raise_busy(const char *what, const char *does) {
    PyErr_Format(PyExc_RuntimeError,
                 "another thread %s this %s, or this thread does, and a signal's handler was "
                 "called meanwhile",
                 does, what);
}

PyObject *raise_result(PyObject *self, const struct ring *ring, enum ring_result result) {
    struct module_state *state = module_state_of(self);
    uint64_t word = ring_state_word(ring);
    PyObject *exception = NULL;
    if (result == RING_CLOSED) {
        PyErr_SetString(state->channel_closed, "the channel is closed");
    } else if (result == RING_POISONED) {
        exception = PyObject_CallFunction(state->channel_poisoned, "ii", (int)STATE_CODE(word),
                                          (int)STATE_RANK(word));
        if (exception)
            PyErr_SetObject(state->channel_poisoned, exception);
    } else if (result == RING_DEAD) {
        PyErr_SetString(state->channel_error,
                        "this reader was marked dead by the process that watches it");
    } else {
        PyErr_Format(state->channel_corrupt,
                     "tail %llu, capacity %llu: a reader's position isn't within the last capacity "
                     "before the tail; something else wrote into the segment",
                     (unsigned long long)atomic_load(&ring->shared->tail),
                     (unsigned long long)ring->capacity);
    }
    Py_XDECREF(exception);
    return NULL;
}

static bool to_number(PyObject *object, unsigned long long largest, unsigned long long *number) {
    *number = PyLong_AsUnsignedLongLong(object);
    if (PyErr_Occurred())
        return false;
    if (*number > largest)
        PyErr_Format(PyExc_OverflowError, "%llu: at most %llu", *number, largest);
    return *number <= largest;
}

int to_uint16(PyObject *object, void *number) {
    unsigned long long value;
    bool fits = to_number(object, UINT16_MAX, &value);
    *(uint16_t *)number = (uint16_t)value;
    return fits;
}

int to_uint32(PyObject *object, void *number) {
    unsigned long long value;
    bool fits = to_number(object, UINT32_MAX, &value);
    *(uint32_t *)number = (uint32_t)value;
    return fits;
}

int to_uint64(PyObject *object, void *number) {
    unsigned long long value;
    bool fits = to_number(object, UINT64_MAX, &value);
    *(uint64_t *)number = value;
    return fits;
}

uint64_t deadline_of(PyObject *timeout) {
    if (timeout == NULL || timeout == Py_None)
        return UINT64_MAX / 2;
    double seconds = PyFloat_AsDouble(timeout);
    if (PyErr_Occurred())
        return 0;
    if (isnan(seconds)) {
        PyErr_SetString(PyExc_ValueError, "timeout is not a number");
        return 0;
    }
    if (seconds > 1e9)
        return UINT64_MAX / 2;
    return monotonic_ns() + (uint64_t)(seconds > 0 ? seconds * 1e9 : 0);
}

bool check_strategy(int wait) {
    if (wait >= WAIT_AUTO && wait <= WAIT_AWAKE)
        return true;
    PyErr_Format(PyExc_ValueError, "wait=%d: must be WAIT_AUTO, _SPIN, _YIELD, _PARK or _AWAKE",
                 wait);
    return false;
}

struct wait_counts wait_counts_of(struct status_line *line, _Atomic uint64_t *own) {
    if (!line)
        return (struct wait_counts){&own[0], &own[1], &own[2], &own[3], &own[4], &own[5]};
    return (struct wait_counts){&line->spins, &line->yields, &line->parks,
                                &line->early, &line->late,   &line->mispredicted};
}

int wait_python(struct strategy *strategy, struct waiting *waiting, const struct waiter *waiter,
                uint64_t deadline_ns) {
    if (!waiting->began && strategy_begin(strategy, waiting, waiter))
        return 1;
    for (;;) {
        enum wait_result result;
        Py_BEGIN_ALLOW_THREADS result = strategy_wait(strategy, waiting, waiter, deadline_ns);
        Py_END_ALLOW_THREADS if (result == WAIT_READY) return 1;
        if (PyErr_CheckSignals() != 0)
            return -1;
        if (result == WAIT_TIMEOUT)
            return 0;
    }
}

static int add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **type) {
    *type = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    return *type ? PyModule_AddType(module, *type) : -1;
}

static int find_error(PyObject *errors, const char *name, PyObject **error) {
    *error = PyObject_GetAttrString(errors, name);
    return *error ? 0 : -1;
}

static int add_field_kinds(PyObject *module) {
    static const char *const names[N_FIELD_KINDS] = {
        [FIELD_PLAIN] = "FIELD_PLAIN",       [FIELD_RECORD] = "FIELD_RECORD",
        [FIELD_RECORDS] = "FIELD_RECORDS",   [FIELD_GROUP] = "FIELD_GROUP",
        [FIELD_KEYS] = "FIELD_KEYS",         [FIELD_COUNTS] = "FIELD_COUNTS",
        [FIELD_PROGRESS] = "FIELD_PROGRESS", [FIELD_TREND] = "FIELD_TREND",
        [FIELD_SUM] = "FIELD_SUM",           [FIELD_GROUPS] = "FIELD_GROUPS",
        [FIELD_LISTS] = "FIELD_LISTS",       [FIELD_TAILS] = "FIELD_TAILS",
        [FIELD_TOKENS] = "FIELD_TOKENS",     [FIELD_KEYSET] = "FIELD_KEYSET",
        [FIELD_KEY] = "FIELD_KEY",           [FIELD_MEMBER] = "FIELD_MEMBER",
        [FIELD_FINISHED] = "FIELD_FINISHED", [FIELD_ORDER] = "FIELD_ORDER",
        [FIELD_INDEX] = "FIELD_INDEX",
    };
    int failed = 0;
    for (int kind = 0; kind < N_FIELD_KINDS && !failed; kind++)
        failed = PyModule_AddIntConstant(module, names[kind], kind);
    return failed;
}

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
 * to. The `busy` of writers and inboxes, and all containers that are read here, rely on the lock.
 */
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

static int module_exec(PyObject *module) {
    static bool counts_forks;
    struct module_state *state = PyModule_GetState(module);
    if (!check_interpreter() || !check_lock())
        return -1;
    if (!counts_forks && pthread_atfork(NULL, NULL, count_fork) != 0) {
        PyErr_NoMemory();
        return -1;
    }
    counts_forks = true;
    PyObject *errors = PyImport_ImportModule("mpspmd.errors");
    if (!errors)
        return -1;
    int failed = find_error(errors, "ChannelClosed", &state->channel_closed) ||
                 find_error(errors, "ChannelPoisoned", &state->channel_poisoned) ||
                 find_error(errors, "ChannelCorrupt", &state->channel_corrupt) ||
                 find_error(errors, "ChannelError", &state->channel_error) ||
                 find_error(errors, "CodecDesync", &state->codec_desync);
    Py_DECREF(errors);
    failed = failed || add_type(module, &ring_spec, &state->ring_type) ||
             add_type(module, &writer_spec, &state->writer_type) ||
             add_type(module, &inbox_spec, &state->inbox_type) ||
             add_type(module, &page_spec, &state->page_type) ||
             add_type(module, &line_spec, &state->line_type) ||
             add_type(module, &life_spec, &state->life_type) ||
             add_type(module, &block_spec, &state->block_type) ||
             add_type(module, &plan_spec, &state->plan_type) ||
             add_type(module, &encoder_spec, &state->encoder_type) ||
             add_type(module, &decoder_spec, &state->decoder_type) ||
             add_type(module, &reply_order_spec, &state->reply_order_type) ||
             add_field_kinds(module) ||
             PyModule_AddIntConstant(module, "MAX_READERS", RING_MAX_READERS) ||
             PyModule_AddIntConstant(module, "WAIT_AUTO", WAIT_AUTO) ||
             PyModule_AddIntConstant(module, "WAIT_SPIN", WAIT_SPIN) ||
             PyModule_AddIntConstant(module, "WAIT_YIELD", WAIT_YIELD) ||
             PyModule_AddIntConstant(module, "WAIT_PARK", WAIT_PARK) ||
             PyModule_AddIntConstant(module, "WAIT_AWAKE", WAIT_AWAKE) ||
             PyModule_AddIntConstant(module, "KIND_PACKED", KIND_PACKED) ||
             PyModule_AddIntConstant(module, "PHASE_LOADING", PHASE_LOADING) ||
             PyModule_AddIntConstant(module, "PHASE_WAITING", PHASE_WAITING) ||
             PyModule_AddIntConstant(module, "PHASE_DECODING", PHASE_DECODING) ||
             PyModule_AddIntConstant(module, "PHASE_RUNNING", PHASE_RUNNING) ||
             PyModule_AddIntConstant(module, "PHASE_REPLYING", PHASE_REPLYING);
    return failed ? -1 : 0;
}

static int module_traverse(PyObject *module, visitproc visit, void *arg) {
    struct module_state *state = PyModule_GetState(module);
    Py_VISIT(state->ring_type);
    Py_VISIT(state->writer_type);
    Py_VISIT(state->inbox_type);
    Py_VISIT(state->page_type);
    Py_VISIT(state->line_type);
    Py_VISIT(state->life_type);
    Py_VISIT(state->block_type);
    Py_VISIT(state->plan_type);
    Py_VISIT(state->encoder_type);
    Py_VISIT(state->decoder_type);
    Py_VISIT(state->reply_order_type);
    for (size_t i = 0; i < state->spare_lists.n; i++)
        Py_VISIT(state->spare_lists.lists[i]);
    Py_VISIT(state->codec_desync);
    Py_VISIT(state->channel_closed);
    Py_VISIT(state->channel_poisoned);
    Py_VISIT(state->channel_corrupt);
    Py_VISIT(state->channel_error);
    return 0;
}

static int module_clear(PyObject *module) {
    struct module_state *state = PyModule_GetState(module);
    Py_CLEAR(state->ring_type);
    Py_CLEAR(state->writer_type);
    Py_CLEAR(state->inbox_type);
    Py_CLEAR(state->page_type);
    Py_CLEAR(state->line_type);
    Py_CLEAR(state->life_type);
    Py_CLEAR(state->block_type);
    Py_CLEAR(state->plan_type);
    Py_CLEAR(state->encoder_type);
    Py_CLEAR(state->decoder_type);
    Py_CLEAR(state->reply_order_type);
    Py_CLEAR(state->codec_desync);
    free_spare_lists(&state->spare_lists);
    free_shared_ints(state);
    Py_CLEAR(state->channel_closed);
    Py_CLEAR(state->channel_poisoned);
    Py_CLEAR(state->channel_corrupt);
    Py_CLEAR(state->channel_error);
    return 0;
}

static void module_free(void *module) {
    free_idle_blocks(&((struct module_state *)PyModule_GetState(module))->idle_blocks);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_USED},
#endif
    {0, NULL},
};

struct PyModuleDef native_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "mpspmd._native",
    .m_doc = "The lock-free ring in shared memory, its waiting, the status page; the delta codec.",
    .m_size = sizeof(struct module_state),
    .m_methods = pack_methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__native(void) {
    return PyModuleDef_Init(&native_module);
}
