/* How much of each request is scheduled: a dict from key to int, predicted to stay. And their sum.
 */
#ifndef MPSPMD_DELTA_COUNTS_H
#define MPSPMD_DELTA_COUNTS_H

#include "delta/message.h"

extern const struct codec counts_codec, counts_codec_sum;

#endif
