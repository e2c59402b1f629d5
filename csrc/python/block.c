/* Block: memory of a message that its receiver may keep.
 *
 * The kernel has to clear new pages, and a virtual machine's host may have to provide them. For a
 * large message that takes longer than the copy. So a large block that nobody uses is kept for the
 * next message of about its size. Meanwhile the kernel may reclaim its pages (MADV_FREE). */
#include "python/block.h"

#include <string.h>
#include <sys/mman.h>

#include "python/module.h"

enum {
    HUGE_PAGE_BYTES = 2 << 20,
    LARGE_BLOCK_BYTES = 2 * HUGE_PAGE_BYTES, /* less comes from malloc, which keeps it too */
    IDLE_BYTES = 256 << 20,                  /* how much is kept at most: the newest blocks */
};

struct block_object {
    PyObject_HEAD
    char *memory;
    size_t length; /* of the message */
    size_t mapped; /* bytes, or 0 if the memory is from malloc */
};

/* Whole huge pages, because freeing a part of one would split it. */
static size_t mapped_bytes(size_t length) {
    if (length < LARGE_BLOCK_BYTES)
        return 0;
    return (length + HUGE_PAGE_BYTES - 1) / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
}

static struct idle_block remove_idle(struct idle_blocks *idle, size_t i) {
    struct idle_block removed = idle->blocks[i];
    idle->n--;
    memmove(&idle->blocks[i], &idle->blocks[i + 1], (idle->n - i) * sizeof removed);
    idle->bytes -= removed.bytes;
    return removed;
}

/* The newest that is large enough, and at most twice as large. */
static char *take_idle(struct idle_blocks *idle, size_t bytes, size_t *mapped) {
    for (size_t i = idle->n; i-- > 0;) {
        size_t found = idle->blocks[i].bytes;
        if (found < bytes || found / 2 > bytes)
            continue;
        *mapped = found;
        return remove_idle(idle, i).memory;
    }
    return NULL;
}

static void unmap_oldest(struct idle_blocks *idle) {
    struct idle_block oldest = remove_idle(idle, 0);
    munmap(oldest.memory, oldest.bytes);
}

static void put_idle(struct idle_blocks *idle, char *memory, size_t bytes) {
    if (bytes > IDLE_BYTES) {
        munmap(memory, bytes);
        return;
    }
    while (idle->n == IDLE_BLOCKS || idle->bytes + bytes > IDLE_BYTES)
        unmap_oldest(idle);
    (void)madvise(memory, bytes, MADV_FREE);
    idle->blocks[idle->n++] = (struct idle_block){memory, bytes};
    idle->bytes += bytes;
}

void block_free_idle(struct idle_blocks *idle) {
    while (idle->n > 0)
        unmap_oldest(idle);
}

static char *new_memory(size_t length, size_t mapped) {
    if (mapped == 0)
        return PyMem_RawMalloc(length);
    char *memory = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    (void)madvise(memory, mapped, MADV_HUGEPAGE); /* only advice */
    return memory;
}

PyObject *block_new(PyTypeObject *type, size_t length, char **memory) {
    struct idle_blocks *idle = &((struct module_state *)PyType_GetModuleState(type))->idle_blocks;
    struct block_object *self = (struct block_object *)PyType_GenericAlloc(type, 0);
    if (!self)
        return NULL;
    self->length = length;
    self->mapped = mapped_bytes(length);
    if (self->mapped > 0)
        self->memory = take_idle(idle, self->mapped, &self->mapped);
    if (!self->memory)
        self->memory = new_memory(length, self->mapped);
    if (!self->memory) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    *memory = self->memory;
    return (PyObject *)self;
}

static PyObject *block_copy(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"", NULL};
    Py_buffer data;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "y*:Block", names, &data))
        return NULL;
    char *memory;
    PyObject *block = block_new(type, (size_t)data.len, &memory);
    if (block && data.len > LARGE_BYTES) {
        Py_BEGIN_ALLOW_THREADS
        memcpy(memory, data.buf, (size_t)data.len);
        Py_END_ALLOW_THREADS
    } else if (block) {
        memcpy(memory, data.buf, (size_t)data.len);
    }
    PyBuffer_Release(&data);
    return block;
}

static void block_dealloc(PyObject *object) {
    struct block_object *self = (struct block_object *)object;
    if (self->mapped == 0)
        PyMem_RawFree(self->memory);
    else if (self->memory)
        put_idle(&module_state_of(object)->idle_blocks, self->memory, self->mapped);
    extension_free(object);
}

static Py_ssize_t block_length(PyObject *self) {
    return (Py_ssize_t)((struct block_object *)self)->length;
}

static int block_getbuffer(PyObject *object, Py_buffer *view, int flags) {
    struct block_object *self = (struct block_object *)object;
    return PyBuffer_FillInfo(view, object, self->memory, (Py_ssize_t)self->length, 0, flags);
}

static PyType_Slot block_slots[] = {
    {Py_tp_doc, "Memory of a message that its receiver may keep; see _ring.pyi."},
    {Py_tp_new, block_copy},
    {Py_tp_dealloc, block_dealloc},
    {Py_sq_length, block_length},
    {Py_bf_getbuffer, block_getbuffer},
    {0, NULL},
};

PyType_Spec block_spec = {
    .name = "mpspmd._ring.Block",
    .basicsize = sizeof(struct block_object),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = block_slots,
};
