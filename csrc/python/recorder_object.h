/* Recorder and Track: when what happened in the last steps. */
#ifndef MPSPMD_PYTHON_RECORDER_OBJECT_H
#define MPSPMD_PYTHON_RECORDER_OBJECT_H

#include "extension/extension.h"
#include "run/recorder.h"

struct recorder_object {
    PyObject_HEAD
    struct recorder recorder;
    unsigned generation;
};

struct track_object {
    PyObject_HEAD
    struct recorder_object *owner;
    struct track track;
};

extern PyType_Spec recorder_object_spec, track_object_spec;

/* For an argument that is a Track or None: the track, or NULL. False with an exception set: it is
 * something else, or of a process that this one was forked from. */
bool track_argument(PyTypeObject *track_type, PyObject *argument, struct track **track);

#endif
