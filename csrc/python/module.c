/* mpspmd._ring: the ring, its waiting and the status page, for Python. */
#include "python/module.h"

#include "python/fork.h"
#include "python/recorder_object.h"
#include "ring/layout.h"
#include "wait/strategy.h"

static bool add_types(PyObject *module, struct module_state *state) {
    return extension_add_type(module, &ring_object_spec, &state->ring_type) &&
           extension_add_type(module, &writer_object_spec, &state->writer_type) &&
           extension_add_type(module, &inbox_object_spec, &state->inbox_type) &&
           extension_add_type(module, &tap_object_spec, &state->tap_type) &&
           extension_add_type(module, &page_object_spec, &state->page_type) &&
           extension_add_type(module, &line_object_spec, &state->line_type) &&
           extension_add_type(module, &liveness_object_spec, &state->liveness_type) &&
           extension_add_type(module, &recorder_object_spec, &state->recorder_type) &&
           extension_add_type(module, &track_object_spec, &state->track_type) &&
           extension_add_type(module, &block_spec, &state->block_type) &&
           extension_add_type(module, &call_object_spec, &state->call_type) &&
           extension_add_type(module, &exchange_object_spec, &state->exchange_type);
}

static bool add_constants(PyObject *module) {
    static const struct {
        const char *name;
        long value;
    } constants[] = {
        {"MAX_READERS", RING_MAX_READERS},  {"KIND_PACKED", KIND_PACKED},
        {"KIND_REQUEST", KIND_REQUEST},     {"KIND_REPLY", KIND_REPLY},
        {"KIND_STEP", KIND_STEP},           {"WAIT_AUTO", WAIT_AUTO},
        {"WAIT_SPIN", WAIT_SPIN},           {"WAIT_YIELD", WAIT_YIELD},
        {"WAIT_PARK", WAIT_PARK},           {"WAIT_AWAKE", WAIT_AWAKE},
        {"PHASE_LOADING", PHASE_LOADING},   {"PHASE_WAITING", PHASE_WAITING},
        {"PHASE_DECODING", PHASE_DECODING}, {"PHASE_RUNNING", PHASE_RUNNING},
        {"PHASE_REPLYING", PHASE_REPLYING},
    };
    for (size_t i = 0; i < sizeof constants / sizeof constants[0]; i++)
        if (PyModule_AddIntConstant(module, constants[i].name, constants[i].value) != 0)
            return false;
    return true;
}

static bool add_objects(PyObject *module, struct module_state *state) {
    state->no_reply = PyObject_CallNoArgs((PyObject *)&PyBaseObject_Type);
    state->name_take = PyUnicode_InternFromString("take");
    state->name_finish = PyUnicode_InternFromString("finish");
    state->name_hand_over = PyUnicode_InternFromString("hand_over");
    state->name_release = PyUnicode_InternFromString("release");
    return state->no_reply && state->name_take && state->name_finish && state->name_hand_over &&
           state->name_release && PyModule_AddObjectRef(module, "NO_REPLY", state->no_reply) == 0;
}

static int module_exec(PyObject *module) {
    struct module_state *state = PyModule_GetState(module);
    if (!extension_check())
        return -1;
    if (!fork_count()) {
        PyErr_NoMemory();
        return -1;
    }
    bool made = PyModule_AddFunctions(module, serve_methods) == 0 &&
                extension_find_error("ChannelClosed", &state->channel_closed) &&
                extension_find_error("ChannelPoisoned", &state->channel_poisoned) &&
                extension_find_error("ChannelCorrupt", &state->channel_corrupt) &&
                extension_find_error("ChannelError", &state->channel_error) &&
                add_types(module, state) && add_constants(module) && add_objects(module, state);
    return made ? 0 : -1;
}

enum { N_OBJECTS = offsetof(struct module_state, idle_blocks) / sizeof(PyObject *) };

static int module_traverse(PyObject *module, visitproc visit, void *arg) {
    PyObject **objects = PyModule_GetState(module);
    for (size_t i = 0; i < N_OBJECTS; i++)
        Py_VISIT(objects[i]);
    return 0;
}

static int module_clear(PyObject *module) {
    PyObject **objects = PyModule_GetState(module);
    for (size_t i = 0; i < N_OBJECTS; i++)
        Py_CLEAR(objects[i]);
    return 0;
}

static void module_free(void *module) {
    block_free_idle(&((struct module_state *)PyModule_GetState(module))->idle_blocks);
}

static PyModuleDef_Slot module_slots[] = EXTENSION_SLOTS(module_exec);

static struct PyModuleDef ring_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "mpspmd._ring",
    .m_doc = "The lock-free ring in shared memory, its waiting, the status page.",
    .m_size = sizeof(struct module_state),
    .m_methods = values_methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

struct module_state *module_state_of_type(PyTypeObject *type) {
    PyObject *module = PyType_GetModuleByDef(type, &ring_module);
    return module ? PyModule_GetState(module) : NULL;
}

PyMODINIT_FUNC PyInit__ring(void) {
    return PyModuleDef_Init(&ring_module);
}
