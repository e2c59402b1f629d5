/* DeltaEncoder and DeltaDecoder: two ends that hold the same rows, and a check that they do. */
#include "delta.h"

#include <string.h>

struct delta_object {
    PyObject_HEAD struct plan_object *plan;
    struct rows rows;
    uint64_t check; /* of all messages since the key frame, and of the state after them */
    uint32_t sequence;
    bool resync; /* the encoder's next is a key frame; the decoder takes nothing else */
    bool unsent; /* the encoder's last message hasn't been said to be on its way */
    bool busy;
    struct step room;    /* memory of the last message's, for the next */
    PyObject *scheduled; /* list: the keys of COUNTS in the last message. Never changed. */
};

static PyObject *delta_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"plan", NULL};
    struct module_state *module = PyType_GetModuleState(type);
    PyObject *plan;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!", names, module->plan_type, &plan) ||
        !check_plan((struct plan_object *)plan, false))
        return NULL;
    struct delta_object *self = (struct delta_object *)PyType_GenericAlloc(type, 0);
    if (!self)
        return NULL;
    self->plan = (struct plan_object *)Py_NewRef(plan);
    self->scheduled = PyList_New(0);
    self->resync = true;
    if (!rows_open(&self->rows) || !self->scheduled)
        Py_CLEAR(self);
    return (PyObject *)self;
}

/* Also while the object is being made, or has failed to be: anything may be NULL. */
static int delta_traverse(PyObject *object, visitproc visit, void *arg) {
    struct delta_object *self = (struct delta_object *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->scheduled);
    Py_VISIT(self->rows.slot_of);
    for (int i = 0; i < N_ORDERS && self->rows.orders[i]; i++) {
        Py_VISIT(self->rows.orders[i]->keys);
        Py_VISIT(self->rows.orders[i]->counts);
        Py_VISIT(self->rows.orders[i]->given_keys.object);
        Py_VISIT(self->rows.orders[i]->given_counts.object);
    }
    return 0;
}

/* All cycles go through what users have been given, and may have put something into. */
static int delta_clear(PyObject *object) {
    struct delta_object *self = (struct delta_object *)object;
    for (int i = 0; i < N_ORDERS && self->rows.orders[i]; i++) {
        Py_CLEAR(self->rows.orders[i]->given_keys.object);
        Py_CLEAR(self->rows.orders[i]->given_counts.object);
    }
    return 0;
}

static void delta_dealloc(PyObject *object) {
    struct delta_object *self = (struct delta_object *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    rows_close(&self->rows);
    step_free(&self->room);
    Py_XDECREF((PyObject *)self->plan);
    Py_XDECREF(self->scheduled);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

/* A pickle that calls back, or a second thread, would find the rows half changed. */
static bool enter(struct delta_object *self) {
    if (self->busy) {
        PyErr_SetString(PyExc_RuntimeError, "this codec is at work on another message");
        return false;
    }
    self->busy = true;
    return true;
}

static struct step begin_step(struct delta_object *self) {
    const struct step *room = &self->room;
    struct step step = {
        .module = module_state_of((PyObject *)self),
        .rows = &self->rows,
        .out = {.bytes = room->out.bytes, .capacity = room->out.capacity},
        .keys = {.at = room->keys.at, .capacity = room->keys.capacity},
        .counted = {.at = room->counted.at, .capacity = room->counted.capacity},
        .actual = room->actual,
        .predicted = room->predicted,
    };
    self->room = (struct step){0};
    return step;
}

static void end_step(struct delta_object *self, struct step *step) {
    Py_CLEAR(step->cold);
    self->room = *step;
    self->busy = false;
}

/* After a message, on either end: what the next one's check begins with. */
static bool finish(struct delta_object *self, struct step *step, uint64_t check) {
    uint64_t n_rows = (uint64_t)PyDict_GET_SIZE(self->rows.slot_of);
    /* NULL: rows have ended after the counts, with a plan that says so in that order. */
    PyObject *keys = step->has_counts ? self->rows.orders[0]->keys : NULL;
    PyObject *scheduled = keys ? Py_NewRef(keys) : PyList_New(0);
    if (!scheduled)
        return false;
    replace_object(&self->scheduled, scheduled);
    self->check = digest_word(digest_word(check, step->digest), n_rows);
    self->sequence++;
    return true;
}

static bool begin_key_frame(struct delta_object *self) {
    self->check = 0;
    return rows_reset(&self->rows);
}

/* The extra comes first in the cold part. */
static bool put_label(struct step *step, PyObject *note, PyObject *label, PyObject *extra) {
    unsigned long long number = PyLong_AsUnsignedLongLong(note);
    if (PyErr_Occurred())
        return false;
    pack_varint(&step->out, number);
    pack_varint(&step->out, (uint64_t)PyBytes_GET_SIZE(label));
    pack_bytes(&step->out, PyBytes_AS_STRING(label), (size_t)PyBytes_GET_SIZE(label));
    if (extra == Py_None)
        return true;
    step->cold = PyList_New(0);
    return step->cold && PyList_Append(step->cold, extra) == 0;
}

/* (record, note, label, extra, dumps) */
static PyObject *encoder_encode(struct delta_object *self, PyObject *const *args,
                                Py_ssize_t n_args) {
    if (n_args != 5 || !Py_IS_TYPE(args[0], self->plan->type) || !PyBytes_Check(args[2])) {
        PyErr_SetString(PyExc_TypeError, "encode(record, note, label: bytes, extra, dumps)");
        return NULL;
    }
    if (!enter(self))
        return NULL;
    if (self->unsent) {
        /* The other end has never seen it: this one takes its number. */
        self->sequence--;
        self->resync = true;
        self->unsent = false;
    }
    struct step step = begin_step(self);
    uint8_t flags = args[3] == Py_None ? 0 : MESSAGE_EXTRA;
    uint64_t check;
    PyObject *message = NULL;
    /* With no rows a key frame takes no more than a delta, and heals whatever there is. */
    bool is_key = self->resync || PyDict_GET_SIZE(self->rows.slot_of) == 0;
    if (is_key)
        flags |= MESSAGE_KEY;
    put_head(&step);
    if ((!is_key || begin_key_frame(self)) && put_label(&step, args[1], args[2], args[3]) &&
        put_record(&step, self->plan, args[0]))
        message = put_end(&step, self->sequence, flags, args[4], self->check, &check);
    if (message && !finish(self, &step, check))
        Py_CLEAR(message);
    self->resync = !message;
    self->unsent = message != NULL;
    end_step(self, &step);
    return message;
}

static PyObject *encoder_sent(struct delta_object *self, PyObject *Py_UNUSED(none)) {
    self->unsent = false;
    Py_RETURN_NONE;
}

static PyObject *encoder_reset(struct delta_object *self, PyObject *Py_UNUSED(none)) {
    self->resync = true;
    Py_RETURN_NONE;
}

/* Whether the message is the next one, whole. Changes nothing. */
static bool accept(struct delta_object *self, struct step *step, const Py_buffer *message,
                   struct head *head) {
    if (!get_head(step, message, head))
        return false;
    bool is_key = head->flags & MESSAGE_KEY;
    /* What was lost before a key frame no longer matters to an end that knows of its loss. */
    if (head->sequence != self->sequence && !(self->resync && is_key))
        return raise_desync(step->module, "message %u came where %u was due",
                            (unsigned)head->sequence, (unsigned)self->sequence);
    if (self->resync && !is_key)
        return raise_desync(step->module, "message %u needs those before it: a key frame is due",
                            (unsigned)head->sequence);
    if (head->check != check_of(message, is_key ? 0 : self->check))
        return raise_desync(step->module,
                            "message %u doesn't match what this end holds: it was changed on its "
                            "way, or the two ends have drifted apart",
                            (unsigned)head->sequence);
    return true;
}

/* (record, note, label, extra), after the state has taken in what the message says. */
static PyObject *read_fields(struct delta_object *self, struct step *step, uint8_t flags) {
    uint64_t note = unpack_varint(&step->in);
    size_t length = unpack_length(&step->in);
    const uint8_t *label = unpack_bytes(&step->in, length);
    if (!label)
        return NULL;
    PyObject *extra = Py_None;
    if (flags & MESSAGE_EXTRA && step->cold)
        extra = PyList_GetItem(step->cold, step->next_cold++);
    Py_XINCREF(extra);
    PyObject *record = extra ? get_record(step, self->plan) : NULL;
    if (!record) {
        Py_XDECREF(extra);
        return NULL;
    }
    return Py_BuildValue("NKy#N", record, (unsigned long long)note, (const char *)label,
                         (Py_ssize_t)length, extra);
}

static PyObject *decode_accepted(struct delta_object *self, struct step *step, PyObject *payload,
                                 const struct head *head, PyObject *loads) {
    PyObject *type = NULL, *value = NULL, *traceback = NULL;
    /* What can't be unpickled is reported, but the rows go on with the other end's. */
    if (!get_cold(step, payload, head, loads))
        PyErr_Fetch(&type, &value, &traceback);
    PyObject *result = NULL;
    if (!(head->flags & MESSAGE_KEY) || begin_key_frame(self))
        result = read_fields(self, step, head->flags);
    self->resync = !result;
    self->sequence = head->sequence;
    if (result && !finish(self, step, head->check))
        Py_CLEAR(result);
    if (!result)
        raise_unreadable(step->module, "message %u can't be read", (unsigned)head->sequence);
    if (type) {
        PyErr_Restore(type, value, traceback);
        Py_CLEAR(result);
    }
    return result;
}

/* (payload, loads) */
static PyObject *decoder_decode(struct delta_object *self, PyObject *const *args,
                                Py_ssize_t n_args) {
    Py_buffer message;
    if (n_args != 2) {
        PyErr_SetString(PyExc_TypeError, "decode(payload, loads)");
        return NULL;
    }
    if (PyObject_GetBuffer(args[0], &message, PyBUF_SIMPLE) != 0)
        return NULL;
    PyObject *result = NULL;
    if (enter(self)) {
        struct step step = begin_step(self);
        struct head head;
        if (accept(self, &step, &message, &head))
            result = decode_accepted(self, &step, args[0], &head, args[1]);
        else
            self->resync = true;
        end_step(self, &step);
    }
    PyBuffer_Release(&message);
    return result;
}

static Py_ssize_t delta_length(struct delta_object *self) {
    return PyDict_GET_SIZE(self->rows.slot_of);
}

/* (order) -> (check, scheduled, order) */
static PyObject *delta_reply_base(struct delta_object *self, PyObject *order) {
    return Py_BuildValue("KOO", (unsigned long long)self->check, self->scheduled, order);
}

static PyMethodDef encoder_methods[] = {
    {"encode", (PyCFunction)(void (*)(void))encoder_encode, METH_FASTCALL, NULL},
    {"sent", (PyCFunction)encoder_sent, METH_NOARGS, NULL},
    {"reset", (PyCFunction)encoder_reset, METH_NOARGS, NULL},
    {"reply_base", (PyCFunction)delta_reply_base, METH_O, NULL},
    {0},
};

static PyMethodDef decoder_methods[] = {
    {"decode", (PyCFunction)(void (*)(void))decoder_decode, METH_FASTCALL, NULL},
    {"reply_base", (PyCFunction)delta_reply_base, METH_O, NULL},
    {0},
};

static PyType_Slot encoder_slots[] = {
    {Py_tp_doc, "The writing end of a delta codec; see _native.pyi."},
    {Py_tp_new, delta_new},
    {Py_tp_dealloc, delta_dealloc},
    {Py_tp_traverse, delta_traverse},
    {Py_tp_clear, delta_clear},
    {Py_tp_methods, encoder_methods},
    {Py_sq_length, delta_length},
    {0, NULL},
};

static PyType_Slot decoder_slots[] = {
    {Py_tp_doc, "The reading end of a delta codec; see _native.pyi."},
    {Py_tp_new, delta_new},
    {Py_tp_dealloc, delta_dealloc},
    {Py_tp_traverse, delta_traverse},
    {Py_tp_clear, delta_clear},
    {Py_tp_methods, decoder_methods},
    {Py_sq_length, delta_length},
    {0, NULL},
};

PyType_Spec encoder_spec = {
    .name = "mpspmd._native.DeltaEncoder",
    .basicsize = sizeof(struct delta_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = encoder_slots,
};

PyType_Spec decoder_spec = {
    .name = "mpspmd._native.DeltaDecoder",
    .basicsize = sizeof(struct delta_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = decoder_slots,
};
