/* serve(): a rank's loop receives requests, calls the worker's methods, and replies. */
#include "python/arguments.h"
#include "python/inbox_object.h"
#include "python/module.h"
#include "python/page_object.h"
#include "python/raise.h"
#include "python/waits.h"
#include "python/writer_object.h"

enum { MOST_ARGUMENTS = 8 /* of a method that is called without making a tuple */ };

/* What serve() got. All references are borrowed from its arguments. */
struct server {
    struct module_state *state;
    struct inbox_object *requests;
    struct writer_object *replies; /* NULL: `reply` sends all replies */
    struct line_object *line;
    PyObject *worker, *later, *reply_class;
    long rank;
    PyObject *receive; /* NULL: of `requests` */
    int decodes_all;
    PyObject *decode, *fail, *reply;
    uint64_t came_before; /* the key by which recv() predicts when the next request comes */
};

/* One request. All references are borrowed from the tuple that fields_of() returns. */
struct request {
    uint64_t step;
    PyObject *method; /* the name of the worker's method, or what to call instead */
    PyObject *args, *kwargs, *reply_ranks, *name;
};

/* The worker's method may have forked this process: the child has no mapping of the page. */
static bool enter_phase(const struct server *self, enum status_phase phase, uint64_t step,
                        const char *method, size_t method_bytes) {
    if (!page_check_writable(self->line->owner))
        return false;
    line_change(self->line, phase, step, method, method_bytes);
    return true;
}

/* Phase running. Half of a surrogate pair in a name has no UTF-8. */
static bool show(const struct server *self, const struct request *request) {
    Py_ssize_t n;
    const char *text = PyUnicode_AsUTF8AndSize(request->name, &n);
    if (text)
        return enter_phase(self, PHASE_RUNNING, request->step, text, (size_t)n);
    PyErr_Clear();
    PyObject *bytes = PyUnicode_AsEncodedString(request->name, "utf-8", "backslashreplace");
    bool shown = bytes && enter_phase(self, PHASE_RUNNING, request->step, PyBytes_AS_STRING(bytes),
                                      (size_t)PyBytes_GET_SIZE(bytes));
    Py_XDECREF(bytes);
    return shown;
}

/* Whether a packed message is a request that needs no decode(). */
static bool is_plain(PyObject *fields) {
    return PyTuple_CheckExact(fields) && PyTuple_GET_SIZE(fields) == 4 &&
           PyUnicode_CheckExact(PyTuple_GET_ITEM(fields, 0));
}

/* Whether decode() may return this. */
static bool is_request(PyObject *fields) {
    if (!PyTuple_Check(fields))
        return false;
    Py_ssize_t n = PyTuple_GET_SIZE(fields);
    return n == 5 || (n == 4 && PyUnicode_Check(PyTuple_GET_ITEM(fields, 0)));
}

/* The tuple that a message holds, or that `decode` has made of it. NULL with an exception set, or
 * without one if `decode` has reported an error to the engine. */
static PyObject *fields_of(const struct server *self, const struct received *message) {
    if (!self->decodes_all && message->kind & KIND_PACKED && is_plain(message->payload))
        return Py_NewRef(message->payload);
    PyObject *fields = PyObject_CallFunction(self->decode, "HKO", message->kind,
                                             (unsigned long long)message->tag, message->payload);
    if (fields == Py_None)
        Py_CLEAR(fields);
    else if (fields && !is_request(fields)) {
        Py_CLEAR(fields);
        PyErr_SetString(PyExc_TypeError, "decode() must return a request, or None");
    }
    return fields;
}

/* A method's name as the interned string, which CPython finds faster in a class. */
static bool intern_method(struct request *request, PyObject **interned) {
    if (!PyUnicode_CheckExact(request->method))
        return true;
    *interned = Py_NewRef(request->method);
    PyUnicode_InternInPlace(interned);
    if (request->name == request->method)
        request->name = *interned;
    request->method = *interned;
    return *interned != NULL;
}

static PyObject *call_slowly(const struct server *self, const struct request *request) {
    PyObject *method = PyUnicode_Check(request->method)
                           ? PyObject_GetAttr(self->worker, request->method)
                           : Py_NewRef(request->method);
    PyObject *args = method ? PySequence_Tuple(request->args) : NULL;
    PyObject *kwargs = args ? PyDict_New() : NULL, *result = NULL;
    if (kwargs && PyDict_Update(kwargs, request->kwargs) == 0)
        result = PyObject_Call(method, args, kwargs);
    Py_XDECREF(method);
    Py_XDECREF(args);
    Py_XDECREF(kwargs);
    return result;
}

static PyObject *call(const struct server *self, const struct request *request) {
    PyObject *args = request->args, *kwargs = request->kwargs;
    PyObject *stack[1 + MOST_ARGUMENTS] = {self->worker};
    bool few = PyTuple_CheckExact(args) && PyTuple_GET_SIZE(args) <= MOST_ARGUMENTS &&
               PyDict_CheckExact(kwargs) && PyDict_GET_SIZE(kwargs) == 0;
    if (!few || !PyUnicode_CheckExact(request->method))
        return call_slowly(self, request);
    size_t n = (size_t)PyTuple_GET_SIZE(args);
    for (size_t i = 0; i < n; i++)
        stack[1 + i] = PyTuple_GET_ITEM(args, (Py_ssize_t)i);
    return PyObject_VectorcallMethod(request->method, stack, 1 + n, NULL);
}

/* Tells the engine of the exception that is set. False: it ends the rank. */
static bool report(const struct server *self, const struct request *request) {
    if (PyErr_ExceptionMatches(PyExc_SystemExit))
        return false;
    PyObject *error = raise_taken();
    PyObject *none =
        PyObject_CallFunction(self->fail, "KOOOO", (unsigned long long)request->step,
                              request->method, request->name, request->reply_ranks, error);
    Py_DECREF(error);
    Py_XDECREF(none);
    return none != NULL;
}

static bool is_answered(const struct server *self, PyObject *ranks) {
    int overflow;
    if (PyLong_Check(ranks))
        return PyLong_AsLongAndOverflow(ranks, &overflow) == self->rank;
    return PyUnicode_Check(ranks) && PyUnicode_CompareWithASCIIString(ranks, "all") == 0;
}

static bool send_reply(const struct server *self, const struct request *request, PyObject *result) {
    if (!enter_phase(self, PHASE_REPLYING, 0, NULL, 0))
        return false;
    if (self->replies && (PyObject *)Py_TYPE(result) != self->reply_class) {
        int sent = writer_send_packed(self->replies, KIND_REPLY, request->step, result);
        if (sent > 0)
            status_add(&self->line->line->counters[COUNT_REPLIES], 1);
        if (sent < 0)
            return !PyErr_ExceptionMatches(self->state->channel_error) && report(self, request);
        if (sent > 0)
            return true;
    }
    PyObject *none = PyObject_CallFunction(self->reply, "KOO", (unsigned long long)request->step,
                                           request->name, result);
    Py_XDECREF(none);
    return none != NULL;
}

static bool run(struct server *self, const struct request *request) {
    Py_hash_t hash = PyObject_Hash(request->name);
    self->came_before = (uint64_t)hash;
    if ((hash == -1 && PyErr_Occurred()) || !show(self, request))
        return false;
    PyObject *result = call(self, request);
    if (!result)
        return report(self, request);
    bool going_on = result == self->later || !is_answered(self, request->reply_ranks) ||
                    send_reply(self, request, result);
    Py_DECREF(result);
    return going_on;
}

static bool serve_message(struct server *self, const struct received *message) {
    struct request request = {.step = message->tag};
    PyObject *fields = fields_of(self, message), *interned = NULL;
    Py_DECREF(message->payload); /* a large request is freed with `fields` */
    bool going_on = fields || !PyErr_Occurred();
    if (fields) {
        request.method = request.name = PyTuple_GET_ITEM(fields, 0);
        request.args = PyTuple_GET_ITEM(fields, 1);
        request.kwargs = PyTuple_GET_ITEM(fields, 2);
        request.reply_ranks = PyTuple_GET_ITEM(fields, 3);
        if (PyTuple_GET_SIZE(fields) == 5)
            request.name = PyTuple_GET_ITEM(fields, 4);
        going_on = intern_method(&request, &interned) && run(self, &request);
    }
    Py_XDECREF(interned);
    Py_XDECREF(fields);
    return going_on;
}

/* Returns what inbox_receive() does. */
static int receive(const struct server *self, struct received *message) {
    if (!self->receive) {
        struct waiting waiting = {.key = self->came_before};
        return inbox_receive(self->requests, UINT64_MAX / 2, &waiting, message);
    }
    PyObject *tuple =
        PyObject_CallFunction(self->receive, "OK", Py_None, (unsigned long long)self->came_before);
    int found = tuple == Py_None ? 0 : tuple && received_parse(tuple, message) ? 1 : -1;
    Py_XDECREF(tuple);
    return found;
}

/* Returns after an interrupt, or with an exception set. */
static void serve_all(struct server *self) {
    for (unsigned served = 0;; served++) {
        bool goes_on = served % MOST_IN_A_ROW == 0 ? waits_let_others_run() : !PyErr_CheckSignals();
        if (!goes_on || listener_take_interrupt(&self->requests->listener) ||
            !enter_phase(self, PHASE_WAITING, 0, NULL, 0))
            return;
        struct received message;
        if (receive(self, &message) <= 0 || !serve_message(self, &message))
            return;
    }
}

static PyObject *serve(PyObject *module, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"requests", "replies",     "line",    "rank",        "worker",
                            "later",    "reply_class", "receive", "decodes_all", "decode",
                            "fail",     "reply",       NULL};
    struct server self = {.state = PyModule_GetState(module)};
    PyObject *replies, *receive_function;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "$O!OO!lOOOOpOOO:serve", names,
                                     self.state->inbox_type, &self.requests, &replies,
                                     self.state->line_type, &self.line, &self.rank, &self.worker,
                                     &self.later, &self.reply_class, &receive_function,
                                     &self.decodes_all, &self.decode, &self.fail, &self.reply) ||
        !argument_optional(replies, self.state->writer_type, &self.replies))
        return NULL;
    self.receive = receive_function == Py_None ? NULL : receive_function;
    serve_all(&self);
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

PyMethodDef serve_methods[] = {
    {"serve", (PyCFunction)(void (*)(void))serve, METH_VARARGS | METH_KEYWORDS, NULL},
    {NULL, NULL, 0, NULL},
};
