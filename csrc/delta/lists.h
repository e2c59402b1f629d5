/* Lists of tokens: in every reply one for each request, mostly of one token. */
#ifndef MPSPMD_DELTA_LISTS_H
#define MPSPMD_DELTA_LISTS_H

#include "delta/message.h"

extern const struct codec lists_codec;

enum fit lists_put(struct message *message, PyObject *value);
PyObject *lists_get(struct message *message);

#endif
