/* Sets of keys; and those whose rows end. */
#ifndef MPSPMD_DELTA_KEYSETS_H
#define MPSPMD_DELTA_KEYSETS_H

#include "delta/message.h"

extern const struct codec keysets_codec, keysets_codec_finished;

#endif
