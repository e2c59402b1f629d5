/* The replies: which call each is for. */
#include "python/exchange_object.h"

#include "python/raise.h"
#include "python/waits.h"

enum { MOST_TRIES = 10 /* to tell that a call is done, while signals' handlers raise */ };

/* Whether a future is to be told when the call is done. Python code makes it None again. */
static bool is_awaited(const struct call_object *call) {
    return call->kept_future && call->kept_future != Py_None;
}

int exchange_end_call(struct exchange_object *self, struct call_object *call, PyObject *error) {
    PyObject *found = call->step ? PyDict_GetItemWithError(self->pending, call->step) : NULL;
    if (found != (PyObject *)call)
        return PyErr_Occurred() ? -1 : 0;
    /* Here, and not in Python code: a signal's handler can't keep the future out of `untold`. */
    if (is_awaited(call) && PyList_Append(self->untold, call->kept_future) != 0)
        return -1;
    if (error != Py_None)
        extension_replace(&call->error, Py_NewRef(error));
    call->done = true;
    return PyDict_DelItem(self->pending, call->step) == 0 ? 1 : -1;
}

/* Whether others are told when the call is done. */
static bool has_company(const struct exchange_object *self, const struct call_object *call) {
    return PyList_GET_SIZE(self->followers) > 0 || is_awaited(call) || call->closes || call->later;
}

/* The last reply to a call in `pending` has come. A signal's handler may raise before `finish` has
 * begun: then it is called again, because the call may be another thread's. */
static bool finish(struct exchange_object *self, struct call_object *call) {
    if (!has_company(self, call))
        return exchange_end_call(self, call, Py_None) >= 0;
    PyObject *error = NULL;
    for (int tries = 0; !call->done && tries < MOST_TRIES; tries++) {
        PyObject *ended =
            PyObject_CallMethodOneArg((PyObject *)self, self->state->name_finish, (PyObject *)call);
        if (!ended)
            extension_replace(&error, raise_taken());
        Py_XDECREF(ended);
    }
    return raise_again(error, false);
}

/* The call that a message is for, if it is pending and has a place for it; or NULL, also with an
 * exception set. A new reference. */
static struct call_object *call_of(const struct exchange_object *self,
                                   const struct received *message) {
    PyObject *step = PyLong_FromUnsignedLongLong(message->tag);
    PyObject *found = step ? PyDict_GetItemWithError(self->pending, step) : NULL;
    struct call_object *call = (struct call_object *)found;
    bool fits = found && Py_IS_TYPE(found, self->call_type) && call->replies &&
                PyList_CheckExact(call->replies) &&
                message->source < PyList_GET_SIZE(call->replies);
    Py_XDECREF(step);
    return fits ? (struct call_object *)Py_NewRef(found) : NULL;
}

/* Leaves a message for the next reader. If there is no place, because so many handlers have left
 * one within each other, the last one is lost. */
static void put_back(struct exchange_object *self, const struct received *message) {
    if (self->n_untaken == MOST_UNTAKEN)
        Py_DECREF(self->untaken[--self->n_untaken].payload);
    self->untaken[self->n_untaken++] = *message;
    Py_INCREF(message->payload);
}

/* The record in the ring that a message shows may be overwritten from now on. */
static bool release_record(struct exchange_object *self, const struct received *message) {
    if (self->replies->current < 0)
        return true;
    PyObject *none = PyObject_CallMethodNoArgs(message->payload, self->state->name_release);
    Py_XDECREF(none);
    return none && inbox_release_record(self->replies);
}

/* Calls callable(rank, kind, step, payload), and with `raised` if there is one. The callable is the
 * caller's no more, and may be NULL with an exception set. */
static bool show(PyObject *callable, const struct received *message, PyObject *raised) {
    PyObject *none =
        callable ? PyObject_CallFunction(callable, raised ? "nHKOO" : "nHKO", message->source,
                                         message->kind, (unsigned long long)message->tag,
                                         message->payload, raised)
                 : NULL;
    Py_XDECREF(callable);
    Py_XDECREF(none);
    return none != NULL;
}

/* Lets `take` take a message. It gets the exception that is set, if there is one: the step codec
 * has raised it. If a signal's handler raises before `take` has begun, the message stays for the
 * next reader, because it may be for another thread. */
static bool take_slowly(struct exchange_object *self, const struct received *message,
                        struct call_object *call) {
    PyObject *raised = raise_taken();
    bool taken = show(PyObject_GetAttr((PyObject *)self, self->state->name_take), message, raised);
    Py_XDECREF(raised);
    PyObject *error = raise_taken();
    bool missed = !taken && call && !call->done &&
                  PyList_GetItem(call->replies, message->source) == self->state->no_reply;
    if (missed)
        put_back(self, message);
    bool released = missed || release_record(self, message);
    return raise_again(error, !released);
}

/* What a reply to a call holds, if it is packed or the step codec decodes it; a new reference.
 * NULL, with an exception set or without, for all that `take` must see to. */
static PyObject *value_of(const struct exchange_object *self, const struct call_object *call,
                          const struct received *message) {
    if (message->kind == (KIND_REPLY | KIND_PACKED))
        return Py_NewRef(message->payload);
    if (message->kind != (KIND_REPLY | KIND_STEP) || self->decode_reply == Py_None ||
        !call->reply_context)
        return NULL;
    PyObject *rank = PyLong_FromSsize_t(message->source);
    PyObject *asked = PyLong_FromSsize_t(call->asked), *value = NULL;
    if (rank && asked)
        value = PyObject_CallFunctionObjArgs(self->decode_reply, call->reply_context, call->step,
                                             rank, message->payload, asked, NULL);
    Py_XDECREF(rank);
    Py_XDECREF(asked);
    return value;
}

/* Gives a call the value of a reply, or lets `take` do it. */
static bool take_reply(struct exchange_object *self, const struct received *message,
                       struct call_object *call) {
    PyObject *value = call ? value_of(self, call, message) : NULL;
    if (!value)
        return take_slowly(self, message, call);
    call->missing--;
    return PyList_SetItem(call->replies, message->source, value) == 0 &&
           release_record(self, message);
}

/* A message that has come; its payload is the caller's no more. If its call can't be finished now,
 * as near the limit of recursion, the message stays: the next reader finishes it. */
static bool take(struct exchange_object *self, const struct received *message) {
    struct call_object *call = call_of(self, message);
    bool was_taken = call && call->missing == 0;
    bool noted =
        !PyErr_Occurred() && (was_taken || !self->note_reply || self->note_reply == Py_None ||
                              show(Py_NewRef(self->note_reply), message, NULL));
    bool taken = noted && (was_taken || take_reply(self, message, call));
    if (call && call->missing == 0 && !call->done) {
        PyObject *error = raise_taken();
        taken = raise_again(error, !finish(self, call));
    }
    if (!noted || (call && call->missing == 0 && !call->done))
        put_back(self, message);
    Py_XDECREF((PyObject *)call);
    Py_DECREF(message->payload);
    return taken && (++self->n_taken % MOST_IN_A_ROW > 0 || waits_let_others_run());
}

/* Whether there is a message that nobody has taken yet. */
static bool pick_up(struct exchange_object *self, struct received *message) {
    if (self->n_untaken == 0)
        return false;
    *message = self->untaken[--self->n_untaken];
    return true;
}

/* Returns what inbox_receive() does. */
static int receive_for(struct exchange_object *self, struct call_object *call, uint64_t deadline_ns,
                       struct received *message) {
    uint64_t key = call->key + (uint64_t)call->missing;
    /* After a read that ended without a message this read goes on with the same wait. A thread that
     * reads for a short time again and again would otherwise poll through a long step. */
    if (call->waiting.key != key)
        call->waiting = (struct waiting){.key = key};
    return inbox_receive(self->replies, deadline_ns, &call->waiting, message);
}

int exchange_read_until(struct exchange_object *self, struct call_object *call,
                        uint64_t deadline_ns, bool tells) {
    struct received message;
    /* Nothing that may run Python code comes between this check and the wait. */
    while (!exchange_is_over(self, call, tells)) {
        int found = pick_up(self, &message) ? 1 : receive_for(self, call, deadline_ns, &message);
        if (found == RECEIVED_LATE)
            return 0;
        if (found < 0 || (found > 0 && !take(self, &message)))
            return -1;
    }
    return 1;
}

bool exchange_read_all(struct exchange_object *self) {
    struct received message;
    for (;;) {
        int found = pick_up(self, &message) ? 1 : inbox_poll(self->replies, &message);
        if (found <= 0)
            return found == 0;
        if (!take(self, &message))
            return false;
    }
}

bool exchange_give_up_lead(struct exchange_object *self) {
    self->leader = 0;
    if (PyList_GET_SIZE(self->followers) == 0)
        return true;
    PyObject *error = raise_taken();
    PyObject *none = PyObject_CallMethodNoArgs((PyObject *)self, self->state->name_hand_over);
    Py_XDECREF(none);
    return raise_again(error, !none);
}
