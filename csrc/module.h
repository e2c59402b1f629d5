/* What the files of the CPython binding share: CPython 3.11 and later, its public API. */
#ifndef MPSPMD_MODULE_H
#define MPSPMD_MODULE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "message.h"
#include "status.h"
#include "strategy.h"

enum {
    N_WAIT_COUNTS = 6,
    LARGE_BYTES = 64 * 1024, /* copying so much is done without the GIL */
    SMALL_BYTES = 4 * 1024,  /* a record of up to this is copied, so that it is free at once */
    IDLE_BLOCKS = 16,
    SPARE_LISTS = 4096,
    KIND_PACKED = 0x2000, /* in a message's kind: it is a packed value, and recv() unpacks it */
};

extern struct PyModuleDef native_module;

/* What py_block.c keeps for the next large message. The oldest comes first. */
struct idle_blocks {
    struct idle_block {
        char *memory;
        size_t bytes;
    } blocks[IDLE_BLOCKS];
    size_t n, bytes;
};

/* Lists that py_given.c has given out, and may give out again. */
struct spare_lists {
    PyObject *lists[SPARE_LISTS];
    size_t n, next;
};

struct module_state {
    PyTypeObject *ring_type, *writer_type, *inbox_type, *page_type, *line_type, *life_type;
    PyTypeObject *block_type;
    PyTypeObject *plan_type, *encoder_type, *decoder_type, *reply_order_type;
    PyObject *channel_closed, *channel_poisoned, *channel_corrupt, *channel_error, *codec_desync;
    struct idle_blocks idle_blocks;
    struct spare_lists spare_lists;
    PyObject **ints; /* int objects from 0 on, made when they are first used */
};

struct module_state *module_state_of(PyObject *self);

/* Changes in a forked child: what was mapped before the fork isn't there. */
extern unsigned fork_generation;

/* What module.c makes the types of; the rest of a type is private to its file. */
extern PyType_Spec ring_spec, writer_spec, inbox_spec, page_spec, line_spec, life_spec, block_spec;
extern PyType_Spec plan_spec, encoder_spec, decoder_spec, reply_order_spec;

void free_shared_ints(struct module_state *module);
void free_spare_lists(struct spare_lists *spare);

static inline void replace_object(PyObject **place, PyObject *object) {
    PyObject *old = *place;
    *place = object;
    Py_XDECREF(old);
}

extern PyMethodDef pack_methods[];

struct ring_object {
    PyObject_HEAD struct ring ring;
    PyObject *bells; /* keeps the pages of shared bells alive */
    unsigned generation;
};

struct page_object {
    PyObject_HEAD struct status status;
    unsigned generation;
};

struct line_object {
    PyObject_HEAD struct page_object *owner;
    struct status_line *line;
};

struct inbox_object {
    PyObject_HEAD Py_ssize_t n_rings;
    PyObject *rings; /* a tuple of ring objects */
    struct ring_reader *readers;
    struct incoming *messages;
    PyObject **buffers; /* the block that messages[i].buffer is */
    bool *ended;        /* closed or poisoned, and seen */
    Py_ssize_t next;    /* where the next look starts */
    Py_ssize_t current; /* the ring whose record is being read in place, or -1 */
    Py_ssize_t exports; /* memoryviews of that record */
    bool busy;
    unsigned generation;
    _Atomic uint32_t interrupts; /* interrupt() calls, */
    uint32_t interrupts_seen;    /* and how many of them recv() has answered */
    struct status_line *line;
    PyObject *line_owner, *page_owner;
    _Atomic uint64_t own_counts[N_WAIT_COUNTS];
    struct waiter waiter;
    struct strategy strategy;
};

/* py_pack.c: bytes that a plain value takes, or -1 for any other; the writing of one that has been
 * measured; and one anew, or NotImplemented for bytes that aren't packed, or NULL and ValueError.
 */
Py_ssize_t packed_size(PyObject *value);
void pack_into(void *memory, PyObject *value);
PyObject *unpack_from(const void *bytes, size_t length);

/* A block of `length` bytes, and where they are. What is in them is left over from somebody. */
PyObject *block_new(struct module_state *state, size_t length, char **memory);

void free_idle_blocks(struct idle_blocks *idle);

/* For the "O&" of PyArg_Parse…(): a number from 0 to the largest that fits, or OverflowError; "I"
 * and "K" cut off what doesn't fit. */
int to_uint16(PyObject *object, void *number);
int to_uint32(PyObject *object, void *number);
int to_uint64(PyObject *object, void *number);

/* Sets the exception that goes with a result; always NULL. */
PyObject *raise_result(PyObject *self, const struct ring *ring, enum ring_result result);

/* False, with an exception set, in a forked child. */
bool check_generation(unsigned generation);

/* What is refused while a method of the same object waits: it let go of the interpreter's lock for
 * other threads, and for signals' handlers. */
void raise_busy(const char *what, const char *does);

/* The same, also for a page that isn't writable. */
bool check_page(struct page_object *page);

/* Nanoseconds of CLOCK_MONOTONIC from seconds (a float, an int, or None for never); 0 on error. */
uint64_t deadline_of(PyObject *timeout);

/* Waits as `strategy` says: at its beginning with the GIL, then without. 1 when ready, 0 at the
 * deadline, -1 with an exception set when a signal handler raised. */
int wait_python(struct strategy *strategy, struct waiting *waiting, const struct waiter *waiter,
                uint64_t deadline_ns);

/* False, with an exception set, unless `wait` is one of the strategies. */
bool check_strategy(int wait);

/* The counters of a status line, or of `own`, which has N_WAIT_COUNTS, where there is no line. */
struct wait_counts wait_counts_of(struct status_line *line, _Atomic uint64_t *own);

/* True when a record, an interrupt or the end of a ring is there for recv(). */
bool inbox_readable(struct inbox_object *inbox);

/* The message that message_receive() has found in ring `i`, as what recv() returns. NULL with an
 * exception set. */
PyObject *inbox_take(struct inbox_object *inbox, Py_ssize_t i);

#endif
