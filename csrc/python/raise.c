#include "python/raise.h"

#include <errno.h>

#include "python/module.h"

PyObject *raise_errno(int error) {
    errno = error;
    return PyErr_SetFromErrno(PyExc_OSError);
}

PyObject *raise_segment(int error, int fd, const char *what) {
    if (error != EPROTO)
        return raise_errno(error);
    return PyErr_Format(PyExc_ValueError, "file descriptor %d is not a %s of layout version %d", fd,
                        what, LAYOUT_VERSION);
}

PyObject *raise_busy(const char *what, const char *does) {
    return PyErr_Format(PyExc_RuntimeError,
                        "another thread %s this %s, or this thread does, and a signal's handler "
                        "was called meanwhile",
                        does, what);
}

PyObject *raise_result(PyObject *self, const struct ring *ring, enum ring_result result) {
    struct module_state *state = module_state_of(self);
    uint64_t word = ring_state_word(ring);
    if (result == RING_CLOSED) {
        PyErr_SetString(state->channel_closed, "the channel is closed");
    } else if (result == RING_POISONED) {
        PyObject *arguments = Py_BuildValue("(ii)", (int)STATE_CODE(word), (int)STATE_RANK(word));
        if (arguments)
            PyErr_SetObject(state->channel_poisoned, arguments);
        Py_XDECREF(arguments);
    } else if (result == RING_DEAD) {
        PyErr_SetString(state->channel_error,
                        "this reader was marked dead by the process that watches it");
    } else {
        PyErr_Format(state->channel_corrupt,
                     "tail %llu, capacity %llu: a reader's position isn't within the last capacity "
                     "before the tail; something else wrote into the segment",
                     (unsigned long long)atomic_load(&ring->shared->tail),
                     (unsigned long long)ring->capacity);
    }
    return NULL;
}

PyObject *raise_taken(void) {
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    if (!type)
        return NULL;
    PyErr_NormalizeException(&type, &error, &traceback);
    if (traceback)
        PyException_SetTraceback(error, traceback);
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return error;
}

bool raise_again(PyObject *error, bool raised_another) {
    if (raised_another)
        Py_XDECREF(error);
    else if (error)
        PyErr_Restore(Py_NewRef((PyObject *)Py_TYPE(error)), error,
                      PyException_GetTraceback(error));
    return !error && !raised_another;
}
