/* Block: memory of a message that its receiver may keep. */
#ifndef MPSPMD_PYTHON_BLOCK_H
#define MPSPMD_PYTHON_BLOCK_H

#include "extension/extension.h"

enum { IDLE_BLOCKS = 16 };

/* What is kept for the next large message. The oldest comes first. */
struct idle_blocks {
    struct idle_block {
        char *memory;
        size_t bytes;
    } blocks[IDLE_BLOCKS];
    size_t n, bytes;
};

/* A Block of `length` bytes, and its memory, which may contain an earlier message. */
PyObject *block_new(PyTypeObject *type, size_t length, char **memory);

void block_free_idle(struct idle_blocks *idle);

#endif
