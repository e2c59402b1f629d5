/* DeltaEncoder and DeltaDecoder: two ends that hold the same rows, and a check that they do. */
#include "delta/plan.h"

struct delta_object {
    PyObject_HEAD
    struct plan_object *plan;
    struct rows rows;
    uint64_t check;    /* of all messages since the key frame, and of the rows after them */
    uint32_t sequence; /* the next message's number */
    bool resync;       /* the next message must be a key frame */
    bool unsent;       /* the encoder's last message may never be sent */
    bool busy;
    struct message message; /* keeps its memory for the next one */
    PyObject *scheduled;    /* list: the keys of COUNTS in the last message; never changed */
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

/* Refuses a second thread, and pickles that call back: they would find the rows half changed. */
static bool begin(struct delta_object *self) {
    if (self->busy)
        return PyErr_Format(PyExc_RuntimeError, "this codec is at work on another message");
    self->busy = true;
    message_begin(&self->message, module_state_of((PyObject *)self), &self->rows, NULL);
    return true;
}

static PyObject *end(struct delta_object *self, PyObject *result) {
    Py_CLEAR(self->message.cold);
    self->busy = false;
    return result;
}

/* After a message, on either end. The next one's check begins with this one's. */
static bool advance(struct delta_object *self, uint64_t check) {
    const struct message *message = &self->message;
    uint64_t n_rows = (uint64_t)PyDict_GET_SIZE(self->rows.slot_of);
    /* NULL if the plan ends rows after the counts. */
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

/* The extra is the first value in the cold part. */
static bool put_label(struct message *message, PyObject *note, PyObject *label, PyObject *extra) {
    unsigned long long number = PyLong_AsUnsignedLongLong(note);
    if (PyErr_Occurred())
        return false;
    pack_varint(&message->out, number);
    pack_sized(&message->out, PyBytes_AS_STRING(label), (size_t)PyBytes_GET_SIZE(label));
    if (extra == Py_None)
        return true;
    message->cold = PyList_New(0);
    return message->cold && PyList_Append(message->cold, extra) == 0;
}

/* (record, note, label, extra, dumps) */
static PyObject *encoder_encode(struct delta_object *self, PyObject *const *args,
                                Py_ssize_t n_args) {
    if (n_args != 5 || !Py_IS_TYPE(args[0], self->plan->type) || !PyBytes_Check(args[2]))
        return PyErr_Format(PyExc_TypeError, "encode(record, note, label: bytes, extra, dumps)");
    if (!begin(self))
        return NULL;
    if (self->unsent) {
        /* The other end hasn't seen the last message: this one takes its number. */
        self->sequence--;
        self->resync = true;
        self->unsent = false;
    }
    struct message *message = &self->message;
    uint8_t flags = args[3] == Py_None ? 0 : MESSAGE_EXTRA;
    uint64_t check;
    PyObject *bytes = NULL;
    /* Without rows a key frame is no longer than a delta, and ends any disagreement. */
    bool is_key = self->resync || PyDict_GET_SIZE(self->rows.slot_of) == 0;
    if (is_key)
        flags |= MESSAGE_KEY;
    message_put_head(message);
    if ((!is_key || begin_key_frame(self)) && put_label(message, args[1], args[2], args[3]) &&
        record_put(message, self->plan, args[0]))
        bytes = message_put_end(message, self->sequence, flags, args[4], self->check, &check);
    if (bytes && !advance(self, check))
        Py_CLEAR(bytes);
    self->resync = !bytes;
    self->unsent = bytes != NULL;
    return end(self, bytes);
}

static PyObject *encoder_sent(struct delta_object *self, PyObject *Py_UNUSED(none)) {
    self->unsent = false;
    Py_RETURN_NONE;
}

static PyObject *encoder_reset(struct delta_object *self, PyObject *Py_UNUSED(none)) {
    self->resync = true;
    Py_RETURN_NONE;
}

/* Whether the message is the next one and undamaged. Changes nothing. */
static bool accept(struct delta_object *self, const Py_buffer *bytes, struct head *head) {
    struct message *message = &self->message;
    if (!message_get_head(message, bytes, head))
        return false;
    bool is_key = head->flags & MESSAGE_KEY;
    /* An end that waits for a key frame doesn't need the messages that were lost before it. */
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

/* (record, note, label, extra). Reading the record updates the rows. */
static PyObject *read_fields(struct delta_object *self, uint8_t flags) {
    struct message *message = &self->message;
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

static PyObject *decode_accepted(struct delta_object *self, PyObject *payload,
                                 const struct head *head, PyObject *loads) {
    PyObject *type = NULL, *value = NULL, *traceback = NULL;
    /* An unpickling error is raised in the end; until then the rows follow the other end's. */
    if (!message_get_cold(&self->message, payload, head, loads))
        PyErr_Fetch(&type, &value, &traceback);
    PyObject *result = NULL;
    if (!(head->flags & MESSAGE_KEY) || begin_key_frame(self))
        result = read_fields(self, head->flags);
    self->resync = !result;
    self->sequence = head->sequence;
    if (result && !advance(self, head->check))
        Py_CLEAR(result);
    if (!result)
        message_raise_desync(&self->message, "message %u can't be read", (unsigned)head->sequence);
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
    struct head head;
    if (n_args != 2)
        return PyErr_Format(PyExc_TypeError, "decode(payload, loads)");
    if (PyObject_GetBuffer(args[0], &view, PyBUF_SIMPLE) != 0)
        return NULL;
    PyObject *result = NULL;
    if (begin(self)) {
        if (accept(self, &view, &head))
            result = decode_accepted(self, args[0], &head, args[1]);
        else
            self->resync = true;
        end(self, result);
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

#define END_SLOTS(doc, methods)                                                                    \
    {                                                                                              \
        {Py_tp_doc, doc}, {Py_tp_new, delta_new}, {Py_tp_dealloc, delta_dealloc},                  \
            {Py_tp_methods, methods}, {Py_sq_length, delta_length}, {                              \
            0, NULL                                                                                \
        }                                                                                          \
    }

static PyType_Slot encoder_slots[] =
    END_SLOTS("The writing end of a delta codec; see _delta.pyi.", encoder_methods);
static PyType_Slot decoder_slots[] =
    END_SLOTS("The reading end of a delta codec; see _delta.pyi.", decoder_methods);

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
