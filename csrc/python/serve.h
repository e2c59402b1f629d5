/* A rank's loop: receives requests, calls the worker's methods, and replies. */
#ifndef MPSPMD_PYTHON_SERVE_H
#define MPSPMD_PYTHON_SERVE_H

#include "extension/extension.h"

/* serve(); see _ring.pyi. */
extern PyMethodDef serve_methods[];

#endif
