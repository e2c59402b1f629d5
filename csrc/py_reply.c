/* Replies: against the request that they answer, and the order of an earlier reply that its sender
 * has been told has come. Nothing is kept here, so that a reply may be dropped. */
#include "delta.h"

#include <stdlib.h>

static bool is_tuple(PyObject *object) {
    if (!PyTuple_Check(object))
        PyErr_SetString(PyExc_TypeError, "a base, and an order in it, is a tuple");
    return PyTuple_Check(object);
}

/* From (seed, scheduled, order): what both ends know of a request. */
static bool read_base(struct reply_base *base, PyObject *tuple, uint64_t *seed) {
    PyObject *number;
    unsigned long long digest = 0;
    if (!is_tuple(tuple) || !PyArg_ParseTuple(tuple, "O!O!O:base", &PyLong_Type, &number,
                                              &PyList_Type, &base->scheduled, &base->order))
        return false;
    base->keys = base->scheduled;
    if (base->order != Py_None &&
        (!is_tuple(base->order) ||
         !PyArg_ParseTuple(base->order, "O!SOK:order", &PyList_Type, &base->keys, &base->indices,
                           &base->index, &digest)))
        return false;
    if (base->index == Py_None)
        base->index = NULL;
    if (base->index && !PyDict_CheckExact(base->index)) {
        PyErr_SetString(PyExc_TypeError, "an order's index is a dict");
        return false;
    }
    *seed = digest_word(PyLong_AsUnsignedLongLong(number), digest);
    base->digest = *seed;
    return !PyErr_Occurred();
}

static void base_free(struct reply_base *base) {
    free(base->homes);
    Py_CLEAR(base->own);
    slots_free(&base->old_places);
    slots_free(&base->new_places);
    slots_free(&base->new_indices);
    Py_CLEAR(base->new_keys);
    Py_CLEAR(base->new_index);
}

/* What a later reply may be against, or what this one was against. */
static PyObject *next_order(const struct reply_base *base) {
    if (!base->has_order || !base->has_index || !base->changed)
        return Py_NewRef(base->order);
    return Py_BuildValue("Oy#OK", base->new_keys, (const char *)base->new_indices.at,
                         (Py_ssize_t)(base->new_indices.n * sizeof *base->new_indices.at),
                         base->new_index ? base->new_index : Py_None,
                         (unsigned long long)base->digest);
}

/* (record, base, dumps) -> (message, order) */
PyObject *plan_encode(PyObject *self, PyObject *const *args, Py_ssize_t n_args) {
    const struct plan_object *plan = (const struct plan_object *)self;
    struct reply_base base = {0};
    uint64_t seed, check;
    if (n_args != 3 || !Py_IS_TYPE(args[0], plan->type)) {
        PyErr_SetString(PyExc_TypeError, "encode_reply(record, base, dumps)");
        return NULL;
    }
    if (!check_plan(plan, true) || !read_base(&base, args[1], &seed))
        return NULL;
    struct step step = {.module = module_state_of(self), .reply = &base};
    PyObject *message = NULL, *order = NULL, *result = NULL;
    put_head(&step);
    if (put_record(&step, plan, args[0]))
        message = put_end(&step, 0, 0, args[2], seed, &check);
    if (message)
        order = next_order(&base);
    if (order)
        result = Py_BuildValue("OO", message, order);
    Py_XDECREF(message);
    Py_XDECREF(order);
    base_free(&base);
    step_free(&step);
    return result;
}

static PyObject *read_reply(const struct plan_object *plan, struct step *step, PyObject *payload,
                            const Py_buffer *message, uint64_t seed, PyObject *loads) {
    struct head head;
    if (!get_head(step, message, &head))
        return NULL;
    if (head.check != check_of(message, seed)) {
        raise_desync(step->module,
                     "a reply of %zd bytes doesn't match the request: it was changed "
                     "on its way, or the two ends have drifted apart",
                     message->len);
        return NULL;
    }
    if (!get_cold(step, payload, &head, loads))
        return NULL;
    PyObject *record = get_record(step, plan);
    if (!record)
        raise_unreadable(step->module, "a reply of %zd bytes can't be read", message->len);
    return record;
}

/* (payload, base, loads) -> (record, order) */
PyObject *plan_decode(PyObject *self, PyObject *const *args, Py_ssize_t n_args) {
    struct reply_base base = {0};
    uint64_t seed;
    Py_buffer message;
    if (n_args != 3) {
        PyErr_SetString(PyExc_TypeError, "decode_reply(payload, base, loads)");
        return NULL;
    }
    if (!check_plan((const struct plan_object *)self, true) || !read_base(&base, args[1], &seed) ||
        PyObject_GetBuffer(args[0], &message, PyBUF_SIMPLE))
        return NULL;
    struct step step = {.module = module_state_of(self), .reply = &base};
    PyObject *order = NULL, *result = NULL;
    PyObject *record =
        read_reply((const struct plan_object *)self, &step, args[0], &message, seed, args[2]);
    if (record)
        order = next_order(&base);
    if (order)
        result = Py_BuildValue("OO", record, order);
    Py_XDECREF(record);
    Py_XDECREF(order);
    base_free(&base);
    step_free(&step);
    PyBuffer_Release(&message);
    return result;
}
