/* Lists of ints along the keys, against what each row is predicted to have. */
#ifndef MPSPMD_DELTA_COLUMNS_H
#define MPSPMD_DELTA_COLUMNS_H

#include "delta/message.h"

extern const struct codec columns_codec_progress, columns_codec_trend;

#endif
