/* A message of the delta codec that is being written or read: its head, its check, and the part
 * that goes as a pickle.
 *
 * A message is   u64 check, u32 end of the hot part, u32 sequence, u8 flags,
 *                varint note, varint label's length, label, the record's fields,
 *                padding to 16, the cold part
 * Of each field there is a code, and what the code says. Cold is what has no compact form: one
 * message of the object codec, of all such values in a list. */
#ifndef MPSPMD_DELTA_MESSAGE_H
#define MPSPMD_DELTA_MESSAGE_H

#include "delta/module.h"
#include "delta/rows.h"
#include "packing/ints.h"

struct reply_base;

struct message {
    struct module_state *module;
    struct rows *rows;        /* NULL in a reply, */
    struct reply_base *reply; /* NULL in a request */
    struct packer out;
    struct unpacker in;
    PyObject *cold; /* list; when reading, NULL if it couldn't be rebuilt */
    Py_ssize_t next_cold;
    struct slots keys;    /* of KEYS, */
    int keys_place;       /* their place among the remembered orders, or -1 */
    struct slots counted; /* of COUNTS */
    bool has_counts;
    int64_t total;   /* of the counts */
    uint64_t digest; /* of what this message has made of the rows */
    struct scratch { /* of one field at a time */
        struct ints actual, predicted;
        struct slots from, to;
    } scratch;
};

/* Begins anew, with the memory of the message before. */
void message_begin(struct message *message, struct module_state *module, struct rows *rows,
                   struct reply_base *reply);
void message_free(struct message *message);

enum message_flags { MESSAGE_KEY = 1, MESSAGE_COLD = 2, MESSAGE_BUFFERS = 4, MESSAGE_EXTRA = 8 };

void message_put_head(struct message *message);
/* bytes, or a list of parts; `check` gets what the next message builds on. Steals nothing. */
PyObject *message_put_end(struct message *message, uint32_t sequence, uint8_t flags,
                          PyObject *dumps, uint64_t seed, uint64_t *check);

struct head {
    uint64_t check;
    uint32_t hot_end, sequence;
    uint8_t flags;
};

/* False with CodecDesync set when the message isn't one. */
bool message_get_head(struct message *message, const Py_buffer *bytes, struct head *head);
uint64_t message_check_of(const Py_buffer *bytes, uint64_t seed);
/* The cold values into message->cold. False with `loads`'s exception set. */
bool message_get_cold(struct message *message, PyObject *payload, const struct head *head,
                      PyObject *loads);

/* Always false. */
bool message_raise_desync(const struct message *message, const char *format, ...);
/* After fields that couldn't be read. Whatever has come of it (a key that isn't UTF-8, a place that
 * isn't there, no room for edits) is a desync to the caller; a MemoryError stays what it is. */
bool message_raise_unreadable(const struct message *message, const char *format, ...);

enum fit {
    FITS,
    UNFIT, /* nothing was changed: send it some other way */
    FAILED /* an exception is set */
};

/* How a kind of field is written and read. */
struct codec {
    enum fit (*put)(struct message *message, PyObject *value);
    /* NULL: with an exception set, or with message->in.bad. */
    PyObject *(*get)(struct message *message);
};

/* For get(): what was read can't have been written. */
static inline PyObject *message_bad(struct message *message) {
    message->in.bad = true;
    return NULL;
}

/* Somebody's code, called on the way, has changed a container: sets an exception. */
void message_raise_changed(void);

#endif
