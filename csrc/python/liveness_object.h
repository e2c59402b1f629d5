/* Liveness: holds this process's liveness words and watches those of the others. */
#ifndef MPSPMD_PYTHON_LIVENESS_OBJECT_H
#define MPSPMD_PYTHON_LIVENESS_OBJECT_H

#include "extension/extension.h"

extern PyType_Spec liveness_object_spec;

#endif
