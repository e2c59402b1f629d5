#include "python/page_object.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "python/arguments.h"
#include "python/fork.h"
#include "python/module.h"
#include "python/raise.h"
#include "python/recorder_object.h"
#include "python/waits.h"
#include "ring/clock.h"
#include "run/liveness.h"

bool page_check_writable(struct page_object *page) {
    if (!fork_check(page->generation))
        return false;
    if (!page->status.writable)
        PyErr_SetString(PyExc_ValueError, "this status page is mapped read-only");
    return page->status.writable;
}

static PyObject *page_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"fd", NULL};
    int fd;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "i:StatusPage", names, &fd))
        return NULL;
    struct page_object *self = (struct page_object *)PyType_GenericAlloc(type, 0);
    if (!self)
        return NULL;
    self->generation = fork_generation;
    int error = status_map(&self->status, fd);
    if (!error)
        return (PyObject *)self;
    Py_DECREF(self);
    return raise_segment(error, fd, "status page");
}

static void page_dealloc(PyObject *object) {
    struct page_object *self = (struct page_object *)object;
    if (self->generation == fork_generation)
        status_unmap(&self->status);
    extension_free(object);
}

static PyObject *raise_ranks(uint32_t n_ranks) {
    return PyErr_Format(PyExc_ValueError, "a status page for %u ranks: 1 to %d are possible",
                        (unsigned)n_ranks, RING_MAX_READERS);
}

static PyObject *page_format(PyObject *Py_UNUSED(type), PyObject *args) {
    int fd;
    uint32_t n_ranks, cores;
    uint64_t ring_inode;
    if (!PyArg_ParseTuple(args, "iO&O&O&:format", &fd, argument_uint32, &n_ranks, argument_uint64,
                          &ring_inode, argument_uint32, &cores))
        return NULL;
    int error = status_format(fd, n_ranks, (uint32_t)getpid(), ring_inode, cores);
    if (error == EINVAL)
        return raise_ranks(n_ranks);
    if (error)
        return raise_errno(error);
    Py_RETURN_NONE;
}

static PyObject *page_segment_bytes(PyObject *Py_UNUSED(type), PyObject *object) {
    uint32_t n_ranks;
    if (!argument_uint32(object, &n_ranks))
        return NULL;
    if (n_ranks < 1 || n_ranks > RING_MAX_READERS)
        return raise_ranks(n_ranks);
    return PyLong_FromSize_t(status_segment_bytes(n_ranks));
}

static PyObject *page_line(struct page_object *self, PyObject *rank_object) {
    unsigned long rank = PyLong_AsUnsignedLong(rank_object);
    if (PyErr_Occurred() || !fork_check(self->generation))
        return NULL;
    if (rank >= self->status.n_ranks)
        return PyErr_Format(PyExc_ValueError, "rank %lu: the run has %u ranks", rank,
                            self->status.n_ranks);
    struct module_state *state = module_state_of((PyObject *)self);
    struct line_object *line = (struct line_object *)PyType_GenericAlloc(state->line_type, 0);
    if (!line)
        return NULL;
    line->owner = (struct page_object *)Py_NewRef((PyObject *)self);
    line->line = &self->status.shared->ranks[rank];
    return (PyObject *)line;
}

/* `offset`: of a number of eight bytes in the page. */
static PyObject *page_number(struct page_object *self, void *offset) {
    if (!fork_check(self->generation))
        return NULL;
    const char *place = (const char *)self->status.shared + (size_t)offset;
    return PyLong_FromUnsignedLongLong(atomic_load((const _Atomic uint64_t *)place));
}

static PyObject *page_engine_pid(struct page_object *self, void *Py_UNUSED(closure)) {
    if (!fork_check(self->generation))
        return NULL;
    return PyLong_FromUnsignedLong(atomic_load(&self->status.shared->about.engine_pid));
}

static PyObject *page_spinners(struct page_object *self, void *Py_UNUSED(closure)) {
    if (!fork_check(self->generation))
        return NULL;
    return Py_BuildValue("(II)", (unsigned)atomic_load(&self->status.shared->spinners.now),
                         (unsigned)atomic_load(&self->status.shared->spinners.allowed));
}

void page_note_sent(struct page_object *self, uint64_t step) {
    atomic_store_explicit(&self->status.shared->about.steps, step, memory_order_relaxed);
}

static PyObject *page_sent(struct page_object *self, PyObject *step_object) {
    unsigned long long step = PyLong_AsUnsignedLongLong(step_object);
    if (PyErr_Occurred() || !page_check_writable(self))
        return NULL;
    page_note_sent(self, step);
    Py_RETURN_NONE;
}

static PyObject *page_beat(struct page_object *self, PyObject *args) {
    uint64_t pending, late;
    if (!PyArg_ParseTuple(args, "O&O&:beat", argument_uint64, &pending, argument_uint64, &late) ||
        !page_check_writable(self))
        return NULL;
    struct status_page *page = self->status.shared;
    atomic_store_explicit(&page->about.pending, pending, memory_order_relaxed);
    atomic_store_explicit(&page->about.late, late, memory_order_relaxed);
    atomic_store_explicit(&page->about.beat_ns, monotonic_ns(), memory_order_release);
    Py_RETURN_NONE;
}

static PyObject *page_last_beat(struct page_object *self, void *Py_UNUSED(closure)) {
    if (!fork_check(self->generation))
        return NULL;
    const struct status_page *page = self->status.shared;
    uint64_t beat_ns = atomic_load_explicit(&page->about.beat_ns, memory_order_acquire);
    return Py_BuildValue("(dKK)", (double)beat_ns / 1e9,
                         (unsigned long long)atomic_load(&page->about.pending),
                         (unsigned long long)atomic_load(&page->about.late));
}

static void line_dealloc(PyObject *object) {
    struct line_object *self = (struct line_object *)object;
    Py_XDECREF((PyObject *)self->owner);
    Py_XDECREF(self->track_owner);
    extension_free(object);
}

static bool check_phase(long phase) {
    if (phase >= PHASE_LOADING && phase <= PHASE_REPLYING)
        return true;
    return PyErr_Format(PyExc_ValueError, "phase %ld: must be one of the PHASE_ constants", phase);
}

void line_change(const struct line_object *self, enum status_phase phase, uint64_t step,
                 const char *method, size_t method_bytes) {
    uint64_t now = status_enter(self->line, phase, step, method, method_bytes);
    if (track_is_on(self->track) && (phase != PHASE_RUNNING || method))
        track_enter(self->track, phase, step, method, method_bytes, now);
}

/* enter(phase) or enter(phase, step, method: bytes) */
static PyObject *line_enter(struct line_object *self, PyObject *const *args, Py_ssize_t n_args) {
    if (n_args != 1 && n_args != 3)
        return PyErr_Format(PyExc_TypeError, "enter(phase) or enter(phase, step, method)");
    long phase = PyLong_AsLong(args[0]);
    unsigned long long step = n_args == 3 ? PyLong_AsUnsignedLongLong(args[1]) : 0;
    char *method = NULL;
    Py_ssize_t method_bytes = 0;
    if (PyErr_Occurred() || !check_phase(phase) || !page_check_writable(self->owner) ||
        (n_args == 3 && PyBytes_AsStringAndSize(args[2], &method, &method_bytes) != 0))
        return NULL;
    line_change(self, (enum status_phase)phase, step, method, (size_t)method_bytes);
    Py_RETURN_NONE;
}

static PyObject *line_open(struct line_object *self, PyObject *Py_UNUSED(none)) {
    if (!page_check_writable(self->owner))
        return NULL;
    atomic_store(&self->line->pid, (uint32_t)getpid());
    status_enter(self->line, PHASE_LOADING, 0, "", 0);
    Py_RETURN_NONE;
}

/* record(track): from now on the changes of phase are recorded as well */
static PyObject *line_record(struct line_object *self, PyObject *track) {
    struct module_state *state = module_state_of((PyObject *)self);
    struct track *found;
    if (!page_check_writable(self->owner) || !track_argument(state->track_type, track, &found))
        return NULL;
    PyObject *old = self->track_owner;
    self->track_owner = Py_NewRef(track);
    self->track = found;
    Py_XDECREF(old);
    Py_RETURN_NONE;
}

static PyObject *line_replied(struct line_object *self, PyObject *Py_UNUSED(none)) {
    if (!page_check_writable(self->owner))
        return NULL;
    status_add(&self->line->counters[COUNT_REPLIES], 1);
    Py_RETURN_NONE;
}

static PyObject *line_snapshot(struct line_object *self, PyObject *Py_UNUSED(none)) {
    static const char *const phases[] = {"loading", "waiting", "decoding", "running", "replying"};
    struct status_snapshot now;
    struct status_line *line = self->line;
    if (!fork_check(self->owner->generation))
        return NULL;
    status_read(line, &now);
    /* A long name was cut, perhaps within a character. */
    PyObject *method = PyUnicode_DecodeUTF8(now.method, (Py_ssize_t)strlen(now.method), "ignore");
    if (!method)
        return NULL;
    PyObject *snapshot = Py_BuildValue("{s:s,s:I,s:I,s:K,s:d,s:N,s:O}", "phase",
                                       now.phase <= PHASE_REPLYING ? phases[now.phase] : "unknown",
                                       "pid", (unsigned)now.pid, "node", (unsigned)line->node,
                                       "step", (unsigned long long)now.step, "since",
                                       (double)now.since_ns / 1e9, "method", method, "has_died",
                                       liveness_is_over(&line->rank_liveness) ? Py_True : Py_False);
    if (snapshot && !waits_add_counters(snapshot, line->counters, 0, N_COUNTERS - 1))
        Py_CLEAR(snapshot);
    return snapshot;
}

static PyObject *page_set_cores(struct page_object *self, PyObject *cores_object) {
    uint32_t cores;
    if (!argument_uint32(cores_object, &cores) || !page_check_writable(self))
        return NULL;
    status_set_cores(self->status.shared, cores);
    Py_RETURN_NONE;
}

/* copy() */
static PyObject *line_copy(struct line_object *self, PyObject *Py_UNUSED(none)) {
    struct status_copy copy;
    if (!fork_check(self->owner->generation))
        return NULL;
    status_copy_line(self->line, &copy);
    return PyBytes_FromStringAndSize((const char *)&copy, sizeof copy);
}

/* paste(copy, node) */
static PyObject *line_paste(struct line_object *self, PyObject *args) {
    struct status_copy copy;
    uint32_t node;
    Py_buffer bytes;
    if (!PyArg_ParseTuple(args, "y*O&:paste", &bytes, argument_uint32, &node))
        return NULL;
    bool fits = bytes.len == sizeof copy;
    if (fits)
        memcpy(&copy, bytes.buf, sizeof copy);
    PyBuffer_Release(&bytes);
    if (!fits)
        return PyErr_Format(PyExc_ValueError, "a copy of a status line has %zu bytes", sizeof copy);
    if (!check_phase((long)copy.phase) || !page_check_writable(self->owner))
        return NULL;
    status_paste_line(self->line, &copy, node);
    Py_RETURN_NONE;
}

static PyMethodDef page_methods[] = {
    {"format", (PyCFunction)page_format, METH_VARARGS | METH_STATIC, NULL},
    {"segment_bytes", (PyCFunction)page_segment_bytes, METH_O | METH_STATIC, NULL},
    {"line", (PyCFunction)page_line, METH_O, NULL},
    {"sent", (PyCFunction)page_sent, METH_O, NULL},
    {"set_cores", (PyCFunction)page_set_cores, METH_O, NULL},
    {"beat", (PyCFunction)page_beat, METH_VARARGS, NULL},
    {0},
};

#define PLACE(name) ((void *)offsetof(struct status_page, about.name))

static PyMemberDef page_members[] = {
    {"n_ranks", T_UINT, offsetof(struct page_object, status.n_ranks), READONLY, NULL},
    {0},
};

static PyGetSetDef page_properties[] = {
    {"engine_pid", (getter)page_engine_pid, NULL, NULL, NULL},
    {"ring_inode", (getter)page_number, NULL, NULL, PLACE(ring_inode)},
    {"steps", (getter)page_number, NULL, NULL, PLACE(steps)},
    {"spinners", (getter)page_spinners, NULL, NULL, NULL},
    {"last_beat", (getter)page_last_beat, NULL, NULL, NULL},
    {0},
};

static PyMethodDef line_methods[] = {
    {"open", (PyCFunction)line_open, METH_NOARGS, NULL},
    {"enter", (PyCFunction)(void (*)(void))line_enter, METH_FASTCALL, NULL},
    {"record", (PyCFunction)line_record, METH_O, NULL},
    {"replied", (PyCFunction)line_replied, METH_NOARGS, NULL},
    {"snapshot", (PyCFunction)line_snapshot, METH_NOARGS, NULL},
    {"copy", (PyCFunction)line_copy, METH_NOARGS, NULL},
    {"paste", (PyCFunction)line_paste, METH_VARARGS, NULL},
    {0},
};

static PyType_Slot page_slots[] = {
    {Py_tp_doc, "The status page of a run; see _ring.pyi."},
    {Py_tp_new, page_new},
    {Py_tp_dealloc, page_dealloc},
    {Py_tp_methods, page_methods},
    {Py_tp_members, page_members},
    {Py_tp_getset, page_properties},
    {0, NULL},
};

static PyType_Slot line_slots[] = {
    {Py_tp_doc, "One rank's line in the status page; see _ring.pyi."},
    {Py_tp_dealloc, line_dealloc},
    {Py_tp_methods, line_methods},
    {0, NULL},
};

PyType_Spec page_object_spec = {
    .name = "mpspmd._ring.StatusPage",
    .basicsize = sizeof(struct page_object),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = page_slots,
};

PyType_Spec line_object_spec = {
    .name = "mpspmd._ring.StatusLine",
    .basicsize = sizeof(struct line_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = line_slots,
};
