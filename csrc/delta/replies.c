#include "delta/order.h"
#include "delta/plan.h"

static void order_dealloc(PyObject *object) {
    struct reply_order *self = (struct reply_order *)object;
    Py_XDECREF(self->keys);
    Py_XDECREF(self->index);
    slots_free(&self->indices);
    extension_free(object);
}

/* What a later reply can be encoded against: this one's order, or the earlier one if it is the
 * same. Both ends know the reply's check, so its order has that as digest. */
static PyObject *next_order(struct module_state *module, struct reply_base *base, uint64_t check) {
    if (!base->has_index || !base->changed)
        return Py_NewRef(base->order ? (PyObject *)base->order : Py_None);
    struct reply_order *order =
        (struct reply_order *)PyType_GenericAlloc(module->reply_order_type, 0);
    if (!order)
        return NULL;
    order->keys = Py_NewRef(base->new_keys);
    order->index = Py_XNewRef(base->new_index);
    order->indices = base->new_indices;
    base->new_indices = (struct slots){0};
    order->digest = check;
    return (PyObject *)order;
}

/* Reads (seed, scheduled, order), which both ends know of a request. */
static bool read_base(const struct module_state *module, struct reply_base *base, PyObject *tuple,
                      uint64_t *seed) {
    PyObject *number, *order;
    if (!PyTuple_Check(tuple))
        return PyErr_Format(PyExc_TypeError, "a base is a tuple");
    if (!PyArg_ParseTuple(tuple, "O!O!O:base", &PyLong_Type, &number, &PyList_Type,
                          &base->scheduled, &order))
        return false;
    if (order != Py_None && !Py_IS_TYPE(order, module->reply_order_type))
        return PyErr_Format(PyExc_TypeError, "a base's order is a ReplyOrder or None");
    base->order = order == Py_None ? NULL : (struct reply_order *)order;
    *seed = digest_word(PyLong_AsUnsignedLongLong(number), base->order ? base->order->digest : 0);
    if (PyErr_Occurred())
        return false;
    /* A copy: Python code that runs between two fields, or later, may change the caller's list. */
    base->keys = base->order
                     ? Py_NewRef(base->order->keys)
                     : PyList_GetSlice(base->scheduled, 0, PyList_GET_SIZE(base->scheduled));
    return base->keys != NULL;
}

/* Ends a reply: (result, order), or NULL if `result` is. Takes over the result's reference. */
static PyObject *finish(struct message *message, PyObject *result, uint64_t check) {
    struct reply_base *base = message->reply;
    PyObject *order = result ? next_order(message->module, base, check) : NULL;
    PyObject *both = order ? PyTuple_Pack(2, result, order) : NULL;
    Py_XDECREF(result);
    Py_XDECREF(order);
    Py_XDECREF(base->keys);
    Py_XDECREF(base->new_keys);
    Py_XDECREF(base->new_index);
    slots_free(&base->new_indices);
    message_free(message);
    return both;
}

/* (record, base, dumps) -> (message, order) */
PyObject *replies_encode(PyObject *self, PyObject *const *args, Py_ssize_t n_args) {
    const struct plan_object *plan = (const struct plan_object *)self;
    struct reply_base base = {0};
    struct message message = {0};
    uint64_t seed, check = 0;
    PyObject *bytes = NULL;
    if (n_args != 3 || !Py_IS_TYPE(args[0], plan->type))
        return PyErr_Format(PyExc_TypeError, "encode_reply(record, base, dumps)");
    message_begin(&message, module_state_of(self), NULL, &base);
    if (plan_check(plan, true) && read_base(message.module, &base, args[1], &seed)) {
        message_put_head(&message);
        if (record_put(&message, plan, args[0]))
            bytes = message_put_end(&message, 0, 0, args[2], seed, &check);
    }
    return finish(&message, bytes, check);
}

static PyObject *read_reply(const struct plan_object *plan, struct message *message,
                            PyObject *payload, const Py_buffer *bytes, uint64_t seed,
                            PyObject *loads, struct head *head) {
    if (!message_get_head(message, bytes, head))
        return NULL;
    if (head->check != message_check_of(bytes, seed))
        message_raise_desync(message,
                             "a reply of %zd bytes doesn't match the request: it was changed "
                             "on its way, or the two ends have drifted apart",
                             bytes->len);
    if (PyErr_Occurred() || !message_get_cold(message, payload, head, loads))
        return NULL;
    PyObject *record = record_get(message, plan);
    if (!record)
        message_raise_desync(message, "a reply of %zd bytes can't be read", bytes->len);
    return record;
}

/* (payload, base, loads) -> (record, order) */
PyObject *replies_decode(PyObject *self, PyObject *const *args, Py_ssize_t n_args) {
    const struct plan_object *plan = (const struct plan_object *)self;
    struct reply_base base = {0};
    struct message message = {0};
    struct head head = {0};
    uint64_t seed;
    Py_buffer view;
    PyObject *record = NULL;
    if (n_args != 3)
        return PyErr_Format(PyExc_TypeError, "decode_reply(payload, base, loads)");
    message_begin(&message, module_state_of(self), NULL, &base);
    if (plan_check(plan, true) && read_base(message.module, &base, args[1], &seed) &&
        PyObject_GetBuffer(args[0], &view, PyBUF_SIMPLE) == 0) {
        record = read_reply(plan, &message, args[0], &view, seed, args[2], &head);
        PyBuffer_Release(&view);
    }
    return finish(&message, record, head.check);
}

static PyMemberDef order_members[] = {
    {"digest", T_ULONGLONG, offsetof(struct reply_order, digest), READONLY, NULL},
    {0},
};

static PyType_Slot order_slots[] = {
    {Py_tp_doc, "What a reply has said about its order; see _delta.pyi."},
    {Py_tp_dealloc, order_dealloc},
    {Py_tp_members, order_members},
    {0, NULL},
};

PyType_Spec reply_order_spec = {
    .name = "mpspmd._delta.ReplyOrder",
    .basicsize = sizeof(struct reply_order),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = order_slots,
};
