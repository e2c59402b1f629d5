#include "delta/requests.h"

#include "delta/message.h"
#include "delta/plan.h"
#include "delta/record.h"

struct delta_object {
    PyObject_HEAD
    struct plan_object *plan;
    struct rows rows;
    uint64_t check; /* of all messages since the key frame, and of the state after them */
    uint32_t sequence;
    bool resync; /* the encoder's next is a key frame; the decoder takes nothing else */
    bool unsent; /* the encoder's last message hasn't been said to be on its way */
    bool busy;
    struct message message; /* the one at work; its memory is kept for the next */
    PyObject *scheduled;    /* list: the keys of COUNTS in the last message. Never changed. */
};

static PyObject *delta_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"plan", NULL};
    struct module_state *module = PyType_GetModuleState(type);
    PyObject *plan;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!", names, module->plan_type, &plan) ||
        !plan_check((struct plan_object *)plan, false))
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

static void delta_dealloc(PyObject *object) {
    struct delta_object *self = (struct delta_object *)object;
    rows_close(&self->rows);
    message_free(&self->message);
    Py_XDECREF((PyObject *)self->plan);
    Py_XDECREF(self->scheduled);
    extension_free(object);
}

/* A pickle that calls back, or a second thread, would find the rows half changed. */
static bool enter(struct delta_object *self) {
    if (self->busy) {
        PyErr_SetString(PyExc_RuntimeError, "this codec is at work on another message");
        return false;
    }
    self->busy = true;
    message_begin(&self->message, module_state_of((PyObject *)self), &self->rows, NULL);
    return true;
}

static void leave(struct delta_object *self) {
    Py_CLEAR(self->message.cold);
    self->busy = false;
}

/* After a message, on either end: what the next one's check begins with. */
static bool finish(struct delta_object *self, struct message *message, uint64_t check) {
    uint64_t n_rows = (uint64_t)PyDict_GET_SIZE(self->rows.slot_of);
    /* NULL: rows have ended after the counts, with a plan that says so in that order. */
    PyObject *keys = message->has_counts ? self->rows.orders[0]->keys : NULL;
    PyObject *scheduled = keys ? Py_NewRef(keys) : PyList_New(0);
    if (!scheduled)
        return false;
    extension_replace(&self->scheduled, scheduled);
    self->check = digest_word(digest_word(check, message->digest), n_rows);
    self->sequence++;
    return true;
}

static bool begin_key_frame(struct delta_object *self) {
    self->check = 0;
    return rows_reset(&self->rows);
}

/* The extra comes first in the cold part. */
static bool put_label(struct message *message, PyObject *note, PyObject *label, PyObject *extra) {
    unsigned long long number = PyLong_AsUnsignedLongLong(note);
    if (PyErr_Occurred())
        return false;
    pack_varint(&message->out, number);
    pack_varint(&message->out, (uint64_t)PyBytes_GET_SIZE(label));
    pack_bytes(&message->out, PyBytes_AS_STRING(label), (size_t)PyBytes_GET_SIZE(label));
    if (extra == Py_None)
        return true;
    message->cold = PyList_New(0);
    return message->cold && PyList_Append(message->cold, extra) == 0;
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
    struct message *message = &self->message;
    uint8_t flags = args[3] == Py_None ? 0 : MESSAGE_EXTRA;
    uint64_t check;
    PyObject *bytes = NULL;
    /* With no rows a key frame takes no more than a delta, and heals whatever there is. */
    bool is_key = self->resync || PyDict_GET_SIZE(self->rows.slot_of) == 0;
    if (is_key)
        flags |= MESSAGE_KEY;
    message_put_head(message);
    if ((!is_key || begin_key_frame(self)) && put_label(message, args[1], args[2], args[3]) &&
        record_put(message, self->plan, args[0]))
        bytes = message_put_end(message, self->sequence, flags, args[4], self->check, &check);
    if (bytes && !finish(self, message, check))
        Py_CLEAR(bytes);
    self->resync = !bytes;
    self->unsent = bytes != NULL;
    leave(self);
    return bytes;
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
static bool accept(struct delta_object *self, struct message *message, const Py_buffer *bytes,
                   struct head *head) {
    if (!message_get_head(message, bytes, head))
        return false;
    bool is_key = head->flags & MESSAGE_KEY;
    /* What was lost before a key frame no longer matters to an end that knows of its loss. */
    if (head->sequence != self->sequence && !(self->resync && is_key))
        return message_raise_desync(message, "message %u came where %u was due",
                                    (unsigned)head->sequence, (unsigned)self->sequence);
    if (self->resync && !is_key)
        return message_raise_desync(message, "message %u needs those before it: a key frame is due",
                                    (unsigned)head->sequence);
    if (head->check != message_check_of(bytes, is_key ? 0 : self->check))
        return message_raise_desync(
            message,
            "message %u doesn't match what this end holds: it was changed on its "
            "way, or the two ends have drifted apart",
            (unsigned)head->sequence);
    return true;
}

/* (record, note, label, extra), after the state has taken in what the message says. */
static PyObject *read_fields(struct delta_object *self, struct message *message, uint8_t flags) {
    uint64_t note = unpack_varint(&message->in);
    size_t length = unpack_length(&message->in);
    const uint8_t *label = unpack_bytes(&message->in, length);
    if (!label)
        return NULL;
    PyObject *extra = Py_None;
    if (flags & MESSAGE_EXTRA && message->cold)
        extra = PyList_GetItem(message->cold, message->next_cold++);
    Py_XINCREF(extra);
    PyObject *record = extra ? record_get(message, self->plan) : NULL;
    if (!record) {
        Py_XDECREF(extra);
        return NULL;
    }
    return Py_BuildValue("NKy#N", record, (unsigned long long)note, (const char *)label,
                         (Py_ssize_t)length, extra);
}

static PyObject *decode_accepted(struct delta_object *self, struct message *message,
                                 PyObject *payload, const struct head *head, PyObject *loads) {
    PyObject *type = NULL, *value = NULL, *traceback = NULL;
    /* What can't be unpickled is reported, but the rows go on with the other end's. */
    if (!message_get_cold(message, payload, head, loads))
        PyErr_Fetch(&type, &value, &traceback);
    PyObject *result = NULL;
    if (!(head->flags & MESSAGE_KEY) || begin_key_frame(self))
        result = read_fields(self, message, head->flags);
    self->resync = !result;
    self->sequence = head->sequence;
    if (result && !finish(self, message, head->check))
        Py_CLEAR(result);
    if (!result)
        message_raise_unreadable(message, "message %u can't be read", (unsigned)head->sequence);
    if (type) {
        PyErr_Restore(type, value, traceback);
        Py_CLEAR(result);
    }
    return result;
}

/* (payload, loads) */
static PyObject *decoder_decode(struct delta_object *self, PyObject *const *args,
                                Py_ssize_t n_args) {
    Py_buffer view;
    if (n_args != 2) {
        PyErr_SetString(PyExc_TypeError, "decode(payload, loads)");
        return NULL;
    }
    if (PyObject_GetBuffer(args[0], &view, PyBUF_SIMPLE) != 0)
        return NULL;
    PyObject *result = NULL;
    if (enter(self)) {
        struct message *message = &self->message;
        struct head head;
        if (accept(self, message, &view, &head))
            result = decode_accepted(self, message, args[0], &head, args[1]);
        else
            self->resync = true;
        leave(self);
    }
    PyBuffer_Release(&view);
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
    {Py_tp_doc, "The writing end of a delta codec; see _delta.pyi."},
    {Py_tp_new, delta_new},
    {Py_tp_dealloc, delta_dealloc},
    {Py_tp_methods, encoder_methods},
    {Py_sq_length, delta_length},
    {0, NULL},
};

static PyType_Slot decoder_slots[] = {
    {Py_tp_doc, "The reading end of a delta codec; see _delta.pyi."},
    {Py_tp_new, delta_new},
    {Py_tp_dealloc, delta_dealloc},
    {Py_tp_methods, decoder_methods},
    {Py_sq_length, delta_length},
    {0, NULL},
};

PyType_Spec encoder_spec = {
    .name = "mpspmd._delta.DeltaEncoder",
    .basicsize = sizeof(struct delta_object),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = encoder_slots,
};

PyType_Spec decoder_spec = {
    .name = "mpspmd._delta.DeltaDecoder",
    .basicsize = sizeof(struct delta_object),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = decoder_slots,
};
