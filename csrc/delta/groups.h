/* Tuples of lists of ids: of the memory blocks that rows get. */
#ifndef MPSPMD_DELTA_GROUPS_H
#define MPSPMD_DELTA_GROUPS_H

#include "delta/message.h"

extern const struct codec groups_codec, groups_codec_one;

#endif
