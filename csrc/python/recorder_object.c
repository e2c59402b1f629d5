#include "python/recorder_object.h"

#include <errno.h>
#include <stddef.h>
#include <unistd.h>

#include "python/arguments.h"
#include "python/fork.h"
#include "python/module.h"
#include "python/raise.h"
#include "ring/clock.h"

static PyObject *recorder_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"fd", NULL};
    int fd;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "i:Recorder", names, &fd))
        return NULL;
    struct recorder_object *self = (struct recorder_object *)PyType_GenericAlloc(type, 0);
    if (!self)
        return NULL;
    self->generation = fork_generation;
    int error = recorder_map(&self->recorder, fd);
    if (!error)
        return (PyObject *)self;
    Py_DECREF(self);
    return raise_segment(error, fd, "recorder");
}

static void recorder_dealloc(PyObject *object) {
    struct recorder_object *self = (struct recorder_object *)object;
    if (self->generation == fork_generation)
        recorder_unmap(&self->recorder);
    extension_free(object);
}

static PyObject *raise_shape(uint32_t n_tracks, uint64_t n_steps) {
    return PyErr_Format(
        PyExc_ValueError,
        "a recorder of %u tracks and %llu steps: 2 to %d tracks are possible, and a "
        "power of two from 2 to %d steps",
        (unsigned)n_tracks, (unsigned long long)n_steps, RING_MAX_READERS + 1, RECORDER_MAX_STEPS);
}

static PyObject *recorder_format_segment(PyObject *Py_UNUSED(type), PyObject *args) {
    int fd;
    uint32_t n_tracks;
    uint64_t n_steps, ring_inode;
    if (!PyArg_ParseTuple(args, "iO&O&O&:format", &fd, argument_uint32, &n_tracks, argument_uint64,
                          &n_steps, argument_uint64, &ring_inode))
        return NULL;
    int error = recorder_format(fd, n_tracks, n_steps, (uint32_t)getpid(), ring_inode);
    if (error == EINVAL)
        return raise_shape(n_tracks, n_steps);
    if (error)
        return raise_segment(error, fd, "recorder");
    Py_RETURN_NONE;
}

static PyObject *recorder_segment_size(PyObject *Py_UNUSED(type), PyObject *args) {
    uint32_t n_tracks;
    uint64_t n_steps;
    if (!PyArg_ParseTuple(args, "O&O&:segment_bytes", argument_uint32, &n_tracks, argument_uint64,
                          &n_steps))
        return NULL;
    if (!recorder_is_valid(n_tracks, n_steps))
        return raise_shape(n_tracks, n_steps);
    return PyLong_FromSize_t(recorder_segment_bytes(n_tracks, n_steps));
}

/* False with an exception set. */
static bool check_track(struct recorder_object *self, uint32_t index) {
    if (!fork_check(self->generation))
        return false;
    if (index < self->recorder.n_tracks)
        return true;
    PyErr_Format(PyExc_ValueError, "track %u: the recorder has %u", (unsigned)index,
                 (unsigned)self->recorder.n_tracks);
    return false;
}

static PyObject *recorder_track(struct recorder_object *self, PyObject *index_object) {
    uint32_t index;
    if (!argument_uint32(index_object, &index) || !check_track(self, index))
        return NULL;
    if (!self->recorder.writable) {
        PyErr_SetString(PyExc_ValueError, "this recorder is mapped read-only");
        return NULL;
    }
    PyTypeObject *type = module_state_of((PyObject *)self)->track_type;
    struct track_object *track = (struct track_object *)PyType_GenericAlloc(type, 0);
    if (!track)
        return NULL;
    track->owner = (struct recorder_object *)Py_NewRef((PyObject *)self);
    track_init(&track->track, &self->recorder, index);
    return (PyObject *)track;
}

static PyObject *recorder_copy_method(struct recorder_object *self, PyObject *Py_UNUSED(none)) {
    if (!fork_check(self->generation))
        return NULL;
    const struct recorder *recorder = &self->recorder;
    size_t bytes = recorder_segment_bytes(recorder->n_tracks, recorder->n_steps);
    PyObject *copy = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)bytes);
    if (copy) {
        unsigned char *memory = (unsigned char *)PyBytes_AS_STRING(copy);
        Py_BEGIN_ALLOW_THREADS
        recorder_copy(recorder, memory);
        Py_END_ALLOW_THREADS
    }
    return copy;
}

/* read(track, step) -> the seven words, or None if the record is of another step */
static PyObject *recorder_read_method(struct recorder_object *self, PyObject *args) {
    uint32_t index;
    uint64_t step;
    struct step_copy copy;
    if (!PyArg_ParseTuple(args, "O&O&:read", argument_uint32, &index, argument_uint64, &step) ||
        !check_track(self, index))
        return NULL;
    recorder_read(&self->recorder, index, step, &copy);
    const uint64_t *words = copy.words;
    if (words[0] != step || copy.sequence & 1)
        Py_RETURN_NONE;
    return Py_BuildValue("(KKKKKKK)", (unsigned long long)words[0], (unsigned long long)words[1],
                         (unsigned long long)words[2], (unsigned long long)words[3],
                         (unsigned long long)words[4], (unsigned long long)words[5],
                         (unsigned long long)words[6]);
}

static PyObject *recorder_ring_inode(struct recorder_object *self, void *Py_UNUSED(closure)) {
    if (!fork_check(self->generation))
        return NULL;
    return PyLong_FromUnsignedLongLong(self->recorder.shared->ring_inode);
}

static void track_dealloc(PyObject *object) {
    struct track_object *self = (struct track_object *)object;
    Py_XDECREF((PyObject *)self->owner);
    extension_free(object);
}

bool track_argument(PyTypeObject *track_type, PyObject *argument, struct track **track) {
    struct track_object *object;
    if (!argument_optional(argument, track_type, &object))
        return false;
    *track = object ? &object->track : NULL;
    return !object || fork_check(object->owner->generation);
}

static PyObject *track_enter_method(struct track_object *self, PyObject *Py_UNUSED(none)) {
    if (!fork_check(self->owner->generation))
        return NULL;
    if (track_is_on(&self->track))
        track_enter_collective(&self->track, monotonic_ns());
    Py_RETURN_NONE;
}

static PyObject *track_exit_method(struct track_object *self, PyObject *Py_UNUSED(none)) {
    if (!fork_check(self->owner->generation))
        return NULL;
    if (track_is_on(&self->track))
        track_exit_collective(&self->track, monotonic_ns());
    Py_RETURN_NONE;
}

static PyObject *track_pause_method(struct track_object *self, PyObject *paused_object) {
    int paused = PyObject_IsTrue(paused_object);
    if (paused < 0 || !fork_check(self->owner->generation))
        return NULL;
    track_pause(&self->track, paused);
    Py_RETURN_NONE;
}

static PyMethodDef recorder_methods[] = {
    {"format", (PyCFunction)recorder_format_segment, METH_VARARGS | METH_STATIC, NULL},
    {"segment_bytes", (PyCFunction)recorder_segment_size, METH_VARARGS | METH_STATIC, NULL},
    {"track", (PyCFunction)recorder_track, METH_O, NULL},
    {"copy", (PyCFunction)recorder_copy_method, METH_NOARGS, NULL},
    {"read", (PyCFunction)recorder_read_method, METH_VARARGS, NULL},
    {0},
};

static PyMemberDef recorder_members[] = {
    {"n_tracks", T_UINT, offsetof(struct recorder_object, recorder.n_tracks), READONLY, NULL},
    {"n_steps", T_ULONGLONG, offsetof(struct recorder_object, recorder.n_steps), READONLY, NULL},
    {0},
};

static PyGetSetDef recorder_properties[] = {
    {"ring_inode", (getter)recorder_ring_inode, NULL, NULL, NULL},
    {0},
};

static PyMethodDef track_methods[] = {
    {"enter_collective", (PyCFunction)track_enter_method, METH_NOARGS, NULL},
    {"exit_collective", (PyCFunction)track_exit_method, METH_NOARGS, NULL},
    {"pause", (PyCFunction)track_pause_method, METH_O, NULL},
    {0},
};

static PyType_Slot recorder_slots[] = {
    {Py_tp_doc, "The recorder of a run; see _ring.pyi."},
    {Py_tp_new, recorder_new},
    {Py_tp_dealloc, recorder_dealloc},
    {Py_tp_methods, recorder_methods},
    {Py_tp_members, recorder_members},
    {Py_tp_getset, recorder_properties},
    {0, NULL},
};

static PyType_Slot track_slots[] = {
    {Py_tp_doc, "What one process of a run records; see _ring.pyi."},
    {Py_tp_dealloc, track_dealloc},
    {Py_tp_methods, track_methods},
    {0, NULL},
};

PyType_Spec recorder_object_spec = {
    .name = "mpspmd._ring.Recorder",
    .basicsize = sizeof(struct recorder_object),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = recorder_slots,
};

PyType_Spec track_object_spec = {
    .name = "mpspmd._ring.Track",
    .basicsize = sizeof(struct track_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = track_slots,
};
