#include "delta/message.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { HEAD_BYTES = 17, HEAD_CHECKED = 8, COLD_ALIGN = 16 /* as codec/objects.py wants it */ };

void message_raise_changed(void) {
    PyErr_SetString(PyExc_RuntimeError, "a list or dict was changed while it was being encoded");
}

bool message_raise_desync(const struct message *message, const char *format, ...) {
    if (PyErr_Occurred() &&
        (PyErr_ExceptionMatches(PyExc_MemoryError) || !PyErr_ExceptionMatches(PyExc_Exception)))
        return false;
    PyErr_Clear();
    va_list values;
    va_start(values, format);
    PyErr_FormatV(message->module->codec_desync, format, values);
    va_end(values);
    return false;
}

void message_begin(struct message *message, struct module_state *module, struct rows *rows,
                   struct reply_base *reply) {
    *message = (struct message){
        .module = module,
        .rows = rows,
        .reply = reply,
        .out = {.bytes = message->out.bytes, .capacity = message->out.capacity},
        .keys = {.at = message->keys.at, .capacity = message->keys.capacity},
        .counted = {.at = message->counted.at, .capacity = message->counted.capacity},
        .scratch = message->scratch,
    };
}

void message_free(struct message *message) {
    free(message->out.bytes);
    free(message->scratch.actual.at);
    free(message->scratch.predicted.at);
    slots_free(&message->scratch.slots);
    slots_free(&message->keys);
    slots_free(&message->counted);
    Py_CLEAR(message->cold);
}

void message_put_head(struct message *message) {
    pack_bytes(&message->out, (const uint8_t[HEAD_BYTES]){0}, HEAD_BYTES);
}

/* `cold`: a part, or a list of parts. */
static bool add_parts(struct digest *digest, PyObject *cold) {
    bool is_list = PyList_Check(cold);
    Py_buffer view;
    for (Py_ssize_t i = 0; i < (is_list ? PyList_GET_SIZE(cold) : 1); i++) {
        PyObject *part = is_list ? PyList_GET_ITEM(cold, i) : cold;
        if (PyObject_GetBuffer(part, &view, PyBUF_SIMPLE) != 0)
            return false;
        digest_add(digest, view.buf, (size_t)view.len);
        PyBuffer_Release(&view);
    }
    return true;
}

/* Joins the hot part and the cold ones: into bytes, or a list if there are buffers. */
static PyObject *join(struct packer *out, PyObject *cold) {
    if (cold && PyBytes_Check(cold)) {
        pack_bytes(out, PyBytes_AS_STRING(cold), (size_t)PyBytes_GET_SIZE(cold));
        cold = NULL;
    }
    if (out->failed)
        return PyErr_NoMemory();
    PyObject *first = PyBytes_FromStringAndSize((const char *)out->bytes, (Py_ssize_t)out->length);
    if (!first || !cold)
        return first;
    PyObject *parts = PyList_GetSlice(cold, 0, PyList_GET_SIZE(cold));
    if (parts && PyList_Insert(parts, 0, first) != 0)
        Py_CLEAR(parts);
    Py_DECREF(first);
    return parts;
}

PyObject *message_put_end(struct message *message, uint32_t sequence, uint8_t flags,
                          PyObject *dumps, uint64_t seed, uint64_t *check) {
    struct packer *out = &message->out;
    PyObject *cold = NULL, *joined = NULL;
    size_t hot_end = out->length;
    if (message->cold) {
        cold = PyObject_CallFunctionObjArgs(dumps, message->cold, NULL);
        if (!cold)
            return NULL;
        flags |= PyList_Check(cold) ? MESSAGE_COLD | MESSAGE_BUFFERS : MESSAGE_COLD;
        while (out->length % COLD_ALIGN && !out->failed)
            pack_byte(out, 0);
    }
    if (out->failed || out->length > UINT32_MAX) {
        Py_XDECREF(cold);
        return PyErr_NoMemory();
    }
    memcpy(out->bytes + 8, &(uint32_t){(uint32_t)hot_end}, 4);
    memcpy(out->bytes + 12, &sequence, 4);
    out->bytes[16] = flags;
    struct digest digest = digest_begin(seed);
    digest_add(&digest, out->bytes + HEAD_CHECKED, out->length - HEAD_CHECKED);
    if (!cold || add_parts(&digest, cold)) {
        *check = digest_end(&digest);
        memcpy(out->bytes, check, sizeof *check);
        joined = join(out, cold);
    }
    Py_XDECREF(cold);
    return joined;
}

bool message_get_head(struct message *message, const Py_buffer *bytes, struct head *head) {
    const uint8_t *at = bytes->buf;
    size_t length = (size_t)bytes->len;
    if (length < HEAD_BYTES)
        return message_raise_desync(message, "a message of %zd bytes has no head", bytes->len);
    memcpy(&head->check, at, sizeof head->check);
    memcpy(&head->hot_end, at + 8, sizeof head->hot_end);
    memcpy(&head->sequence, at + 12, sizeof head->sequence);
    head->flags = at[16];
    if (head->hot_end < HEAD_BYTES || head->hot_end > length)
        return message_raise_desync(message, "a message of %zd bytes says that it has %u",
                                    bytes->len, (unsigned)head->hot_end);
    message->in = (struct unpacker){.at = at + HEAD_BYTES, .end = at + head->hot_end};
    return true;
}

uint64_t message_check_of(const Py_buffer *bytes, uint64_t seed) {
    struct digest digest = digest_begin(seed);
    digest_add(&digest, (const uint8_t *)bytes->buf + HEAD_CHECKED,
               (size_t)bytes->len - HEAD_CHECKED);
    return digest_end(&digest);
}

bool message_get_cold(struct message *message, PyObject *payload, const struct head *head,
                      PyObject *loads) {
    if (!(head->flags & MESSAGE_COLD))
        return true;
    size_t start = ((size_t)head->hot_end + COLD_ALIGN - 1) / COLD_ALIGN * COLD_ALIGN;
    PyObject *buffers = head->flags & MESSAGE_BUFFERS ? Py_True : Py_False;
    message->cold = PyObject_CallFunction(loads, "OOn", payload, buffers, (Py_ssize_t)start);
    if (message->cold && !PyList_Check(message->cold)) {
        Py_CLEAR(message->cold);
        message_raise_desync(message, "the cold part isn't a list");
    }
    return message->cold != NULL;
}
