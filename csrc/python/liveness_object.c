/* Liveness: holds this process's liveness words and watches those of the others. */
#include <errno.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "python/arguments.h"
#include "python/fork.h"
#include "python/module.h"
#include "python/page_object.h"
#include "python/raise.h"
#include "python/ring_object.h"
#include "run/liveness.h"

struct liveness_object {
    PyObject_HEAD
    PyObject *page;
    PyObject *ring_objects;
    size_t n_rings;
    struct ring *rings[1 + RING_MAX_READERS]; /* poisoned when somebody has died */
    uint16_t code;
    int notice_fd;  /* the engine's: an eventfd that counts deaths */
    double grace_s; /* a rank's: how long its main thread may outlive the engine */
    bool held;
    unsigned generation;
    struct liveness_holder holder;
    size_t n_watched;
    struct watched {
        struct liveness_object *owner;
        int rank; /* the rank that holds the word, or -1 for the engine */
        struct liveness_watcher watcher;
    } watched[LIVENESS_MAX_HELD];
};

static void poison_all(const struct watched *watched) {
    const struct liveness_object *self = watched->owner;
    for (size_t i = 0; i < self->n_rings; i++)
        ring_poison(self->rings[i], self->code, watched->rank);
}

static void rank_has_died(void *context) {
    const struct watched *watched = context;
    uint64_t one = 1;
    poison_all(watched);
    while (write(watched->owner->notice_fd, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

static void sleep_for(double seconds) {
    struct timespec left = {.tv_sec = (time_t)seconds,
                            .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9)};
    while (nanosleep(&left, &left) != 0)
        ;
}

/* A handler of SIGTERM interrupts a method that takes long. Without a handler the signal would end
 * the process at once, so it isn't sent. */
static void ask_to_end(void) {
    struct sigaction set;
    if (sigaction(SIGTERM, NULL, &set) == 0 && set.sa_handler != SIG_DFL &&
        set.sa_handler != SIG_IGN)
        kill(getpid(), SIGTERM);
}

/* Ends this process whatever it is doing, in C or with the interpreter's lock held. A rank that
 * only waits for requests ends by itself before SIGTERM comes. */
static void engine_has_died(void *context) {
    const struct watched *watched = context;
    double grace_s = watched->owner->grace_s, ask_after_s = grace_s / 8;
    poison_all(watched);
    sleep_for(ask_after_s);
    ask_to_end();
    sleep_for(grace_s - ask_after_s);
    _exit(1);
}

/* Without the interpreter's lock: a watcher may be busy for a while. */
static void stop_watching(struct liveness_object *self) {
    size_t n_watched = self->n_watched;
    self->n_watched = 0;
    if (self->generation != fork_generation)
        return;
    Py_BEGIN_ALLOW_THREADS
    for (size_t i = 0; i < n_watched; i++)
        liveness_unwatch(&self->watched[i].watcher);
    Py_END_ALLOW_THREADS
}

static void close_liveness(struct liveness_object *self) {
    bool held = self->held;
    self->held = false; /* now: another thread may close it while this one waits */
    stop_watching(self);
    if (!held || self->generation != fork_generation)
        return;
    Py_BEGIN_ALLOW_THREADS
    liveness_release(&self->holder);
    Py_END_ALLOW_THREADS
}

static bool watch_word(struct liveness_object *self, struct liveness *word, int rank,
                       void (*died)(void *)) {
    struct watched *watched = &self->watched[self->n_watched];
    *watched = (struct watched){.owner = self, .rank = rank};
    int error = liveness_watch(&watched->watcher, word, died, watched);
    if (error)
        raise_errno(error);
    else
        self->n_watched++;
    return !error;
}

static bool hold_words(struct liveness_object *self, struct liveness *const *words,
                       size_t n_words) {
    int error;
    Py_BEGIN_ALLOW_THREADS
    error = liveness_hold(&self->holder, words, n_words);
    Py_END_ALLOW_THREADS
    if (error)
        raise_errno(error);
    self->held = error == 0;
    return self->held;
}

static bool keep_rings(struct liveness_object *self, struct module_state *state, PyObject *rings) {
    Py_ssize_t n = PyTuple_Check(rings) ? PyTuple_Size(rings) : 0;
    if (n < 1 || n > 1 + RING_MAX_READERS)
        return PyErr_Format(PyExc_TypeError, "the rings of a run are wanted, as a tuple");
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *item = PyTuple_GetItem(rings, i);
        if (!PyObject_TypeCheck(item, state->ring_type))
            return PyErr_Format(PyExc_TypeError, "a tuple of rings is wanted");
        if (!fork_check(((struct ring_object *)item)->generation))
            return false;
        self->rings[i] = &((struct ring_object *)item)->ring;
    }
    self->n_rings = (size_t)n;
    self->ring_objects = Py_NewRef(rings);
    return true;
}

static struct liveness_object *new_liveness(PyTypeObject *type, PyObject *page, PyObject *rings,
                                            uint16_t code) {
    struct module_state *state = PyType_GetModuleState(type);
    if (!PyObject_TypeCheck(page, state->page_type)) {
        PyErr_SetString(PyExc_TypeError, "a StatusPage is wanted");
        return NULL;
    }
    if (!page_check_writable((struct page_object *)page))
        return NULL;
    struct liveness_object *self = (struct liveness_object *)PyType_GenericAlloc(type, 0);
    if (!self)
        return NULL;
    self->page = Py_NewRef(page);
    self->code = code;
    self->notice_fd = -1;
    self->generation = fork_generation;
    if (!keep_rings(self, state, rings))
        Py_CLEAR(self);
    return self;
}

static PyObject *liveness_of_engine(PyTypeObject *type, PyObject *args) {
    PyObject *page_object, *rings;
    uint16_t code;
    int notice_fd;
    if (!PyArg_ParseTuple(args, "OOO&i:of_engine", &page_object, &rings, argument_uint16, &code,
                          &notice_fd))
        return NULL;
    struct liveness_object *self = new_liveness(type, page_object, rings, code);
    if (!self)
        return NULL;
    const struct status *run = &((struct page_object *)page_object)->status;
    struct status_line *ranks = run->shared->ranks;
    struct liveness *words[LIVENESS_MAX_HELD];
    self->notice_fd = notice_fd;
    for (uint32_t rank = 0; rank < run->n_ranks; rank++)
        words[rank] = &ranks[rank].engine_liveness;
    bool done = hold_words(self, words, run->n_ranks);
    for (uint32_t rank = 0; done && rank < run->n_ranks; rank++)
        done = watch_word(self, &ranks[rank].rank_liveness, (int)rank, rank_has_died);
    if (!done)
        Py_CLEAR(self);
    return (PyObject *)self;
}

static PyObject *liveness_of_rank(PyTypeObject *type, PyObject *args) {
    PyObject *page_object, *rings;
    uint16_t code;
    uint32_t rank;
    double grace_s;
    if (!PyArg_ParseTuple(args, "OOO&O&d:of_rank", &page_object, &rings, argument_uint16, &code,
                          argument_uint32, &rank, &grace_s))
        return NULL;
    struct liveness_object *self = new_liveness(type, page_object, rings, code);
    if (!self)
        return NULL;
    const struct status *run = &((struct page_object *)page_object)->status;
    if (rank >= run->n_ranks || !(grace_s >= 0 && grace_s < 1e9)) {
        PyErr_Format(PyExc_ValueError, "rank %u of %u, or the grace, is out of range", rank,
                     run->n_ranks);
        Py_DECREF(self);
        return NULL;
    }
    self->grace_s = grace_s;
    struct status_line *line = &run->shared->ranks[rank];
    struct liveness *own = &line->rank_liveness;
    if (!hold_words(self, &own, 1) ||
        !watch_word(self, &line->engine_liveness, -1, engine_has_died))
        Py_CLEAR(self);
    return (PyObject *)self;
}

static PyObject *liveness_stop_watching(struct liveness_object *self, PyObject *Py_UNUSED(none)) {
    stop_watching(self);
    Py_RETURN_NONE;
}

static PyObject *liveness_close(struct liveness_object *self, PyObject *Py_UNUSED(none)) {
    close_liveness(self);
    Py_RETURN_NONE;
}

static PyObject *get_dead(struct liveness_object *self, void *Py_UNUSED(closure)) {
    if (!fork_check(self->generation))
        return NULL;
    PyObject *dead = PyList_New(0);
    for (size_t i = 0; dead && i < self->n_watched; i++) {
        if (!liveness_is_over(self->watched[i].watcher.liveness))
            continue;
        PyObject *rank = PyLong_FromLong(self->watched[i].rank);
        if (!rank || PyList_Append(dead, rank) != 0)
            Py_CLEAR(dead);
        Py_XDECREF(rank);
    }
    return dead;
}

static void liveness_dealloc(PyObject *object) {
    struct liveness_object *self = (struct liveness_object *)object;
    close_liveness(self);
    Py_XDECREF(self->page);
    Py_XDECREF(self->ring_objects);
    extension_free(object);
}

static PyMethodDef liveness_methods[] = {
    {"of_engine", (PyCFunction)liveness_of_engine, METH_VARARGS | METH_CLASS, NULL},
    {"of_rank", (PyCFunction)liveness_of_rank, METH_VARARGS | METH_CLASS, NULL},
    {"stop_watching", (PyCFunction)liveness_stop_watching, METH_NOARGS, NULL},
    {"close", (PyCFunction)liveness_close, METH_NOARGS, NULL},
    {0},
};

static PyGetSetDef liveness_properties[] = {
    {"dead", (getter)get_dead, NULL, NULL, NULL},
    {0},
};

static PyType_Slot liveness_slots[] = {
    {Py_tp_doc, "That this process lives, and whether others do; see _ring.pyi."},
    {Py_tp_dealloc, liveness_dealloc},
    {Py_tp_methods, liveness_methods},
    {Py_tp_getset, liveness_properties},
    {0, NULL},
};

PyType_Spec liveness_object_spec = {
    .name = "mpspmd._ring.Liveness",
    .basicsize = sizeof(struct liveness_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = liveness_slots,
};
