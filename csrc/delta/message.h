/* A message of the delta codec during encoding or decoding: its head, its check, its pickled part.
 *
 * A message is   u64 check, u32 end of the hot part, u32 sequence, u8 flags,
 *                varint note, varint label's length, label, the record's fields,
 *                padding to 16, the cold part
 * A field is a code, and then what that code needs. Cold values are those without a compact form.
 * The cold part is a list of all of them, as one message of the object codec. */
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
    struct slots keys;    /* of KEYS */
    int keys_place;       /* KEYS' place among the remembered orders, or -1 */
    struct slots counted; /* of COUNTS */
    bool has_counts;
    uint64_t digest; /* of the rows after this message */
    struct scratch { /* memory that one field at a time uses */
        struct ints actual, predicted;
        struct slots slots;
    } scratch;
};

/* Keeps the memory of the last message. */
void message_begin(struct message *message, struct module_state *module, struct rows *rows,
                   struct reply_base *reply);
void message_free(struct message *message);

enum message_flags { MESSAGE_KEY = 1, MESSAGE_COLD = 2, MESSAGE_BUFFERS = 4, MESSAGE_EXTRA = 8 };

void message_put_head(struct message *message);
/* Returns bytes, or a list of parts. `check` gets the check, on which the next message builds. */
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
/* Reads the cold values into message->cold. False with the exception of `loads` set. */
bool message_get_cold(struct message *message, PyObject *payload, const struct head *head,
                      PyObject *loads);

/* Raises CodecDesync in place of whatever exception reading has set (for a key that isn't UTF-8, a
 * place that doesn't exist), except for a MemoryError or what is no Exception. Always false. */
bool message_raise_desync(const struct message *message, const char *format, ...);

/* For a get_function: no encoder writes what was read. */
static inline PyObject *message_bad(struct message *message) {
    message->in.bad = true;
    return NULL;
}

/* Raises RuntimeError: Python code that ran during encoding has changed a container. */
void message_raise_changed(void);

#endif
