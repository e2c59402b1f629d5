/* Values by themselves: a code, and what it says. What has none is put aside, for a pickle. */
#ifndef MPSPMD_DELTA_PLAIN_H
#define MPSPMD_DELTA_PLAIN_H

#include "delta/message.h"

/* What a field begins with. */
enum code {
    CODE_NONE,
    CODE_FALSE,
    CODE_TRUE,
    CODE_INT,
    CODE_LIST, /* these four are empty */
    CODE_DICT,
    CODE_SET,
    CODE_TUPLE,
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
/* NULL as struct codec has it. */
PyObject *plain_get(struct message *message, uint8_t code);

/* NULL, without an exception, if it isn't UTF-8. */
const char *plain_text_of(PyObject *text, Py_ssize_t *length);
PyObject *plain_get_text(struct message *message, size_t length);

#endif
