/* mpspmd._delta: records of Python as deltas against what both ends hold. */
#include "delta/module.h"

#include "delta/plan.h"

_Static_assert(sizeof(long) == sizeof(int64_t), "PyLong_FromLong() makes ints of 64 bits");

static int module_exec(PyObject *module) {
    struct module_state *state = PyModule_GetState(module);
    bool made = extension_check() && extension_find_error("CodecDesync", &state->codec_desync) &&
                extension_add_type(module, &plan_spec, &state->plan_type) &&
                extension_add_type(module, &encoder_spec, &state->encoder_type) &&
                extension_add_type(module, &decoder_spec, &state->decoder_type) &&
                extension_add_type(module, &reply_order_spec, &state->reply_order_type);
    for (int kind = 0; kind < N_FIELD_KINDS && made; kind++)
        made = PyModule_AddIntConstant(module, fields_codecs[kind].name, kind) == 0;
    return made ? 0 : -1;
}

enum { N_OBJECTS = offsetof(struct module_state, spare_lists) / sizeof(PyObject *) };

static int module_traverse(PyObject *module, visitproc visit, void *arg) {
    struct module_state *state = PyModule_GetState(module);
    for (size_t i = 0; i < N_OBJECTS; i++)
        Py_VISIT(((PyObject **)state)[i]);
    for (size_t i = 0; i < state->spare_lists.n; i++)
        Py_VISIT(state->spare_lists.lists[i]);
    return 0;
}

static int module_clear(PyObject *module) {
    struct module_state *state = PyModule_GetState(module);
    for (size_t i = 0; i < N_OBJECTS; i++)
        Py_CLEAR(((PyObject **)state)[i]);
    reuse_free(&state->spare_lists);
    numbers_free(&state->ints);
    return 0;
}

static PyModuleDef_Slot module_slots[] = EXTENSION_SLOTS(module_exec);

static struct PyModuleDef delta_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "mpspmd._delta",
    .m_doc = "The delta codec: records as what has changed since the last ones.",
    .m_size = sizeof(struct module_state),
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
};

PyMODINIT_FUNC PyInit__delta(void) {
    return PyModuleDef_Init(&delta_module);
}
