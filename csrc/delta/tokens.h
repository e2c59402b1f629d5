/* Lists of tokens by request: drafts, which are new each time, and all tokens, which grow. */
#ifndef MPSPMD_DELTA_TOKENS_H
#define MPSPMD_DELTA_TOKENS_H

#include "delta/message.h"

extern const struct codec tokens_codec, tokens_codec_tails;

#endif
