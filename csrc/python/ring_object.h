/* Ring: a mapping of a segment, and what may be done with it without being its writer or reader. */
#ifndef MPSPMD_PYTHON_RING_OBJECT_H
#define MPSPMD_PYTHON_RING_OBJECT_H

#include "extension/extension.h"
#include "ring/ring.h"

struct ring_object {
    PyObject_HEAD
    struct ring ring;
    PyObject *bells; /* keeps the pages of shared bells alive */
    unsigned generation;
};

#endif
