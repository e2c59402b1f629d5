/* Values of any kind: a code, and then the value. Values without a code go into the cold part. */
#ifndef MPSPMD_DELTA_PLAIN_H
#define MPSPMD_DELTA_PLAIN_H

#include "delta/message.h"

/* What a field begins with. */
enum code {
    CODE_NONE,
    CODE_FALSE,
    CODE_TRUE,
    CODE_INT,
    CODE_LIST,  /* empty, */
    CODE_DICT,  /* empty, */
    CODE_SET,   /* empty, */
    CODE_TUPLE, /* and empty */
    CODE_TEXT,
    CODE_INTS, /* a list of ints */
    CODE_COLD,
    CODE_KIND, /* as the field's kind says */
    CODE_FLOAT,
    CODE_INT_SET,
};

/* False with an exception set. */
bool plain_put(struct message *message, PyObject *value);
bool plain_put_cold(struct message *message, PyObject *value);
/* NULL as from a get_function. */
PyObject *plain_get(struct message *message, uint8_t code);

/* NULL, without an exception, if it isn't UTF-8. */
const char *plain_text_of(PyObject *text, Py_ssize_t *length);
PyObject *plain_get_text(struct message *message, size_t length);

#endif
