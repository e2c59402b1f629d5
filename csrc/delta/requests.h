/* DeltaEncoder and DeltaDecoder: two ends that hold the same rows, and a check that they do. */
#ifndef MPSPMD_DELTA_REQUESTS_H
#define MPSPMD_DELTA_REQUESTS_H

#include "extension/extension.h"

extern PyType_Spec encoder_spec, decoder_spec;

#endif
