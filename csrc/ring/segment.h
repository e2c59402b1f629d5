/* How a segment of shared memory begins, and the check of it: rings and status pages. */
#ifndef MPSPMD_RING_SEGMENT_H
#define MPSPMD_RING_SEGMENT_H

#include <stddef.h>
#include <stdint.h>

/* Maps the first `bytes` of a new segment for writing, if it has `needed` bytes. 0, or an errno
 * value: EPROTO when the segment is shorter. */
int segment_map_new(int fd, size_t bytes, uint64_t needed, void **memory);

/* Reads a segment's first `bytes`, which begin with a magic number and a version, into `about`. 0,
 * or an errno value: EPROTO when these two are wrong. The caller checks the rest. */
int segment_read_about(int fd, void *about, size_t bytes, uint64_t magic);

/* 0, or an errno value: EPROTO when the segment is shorter than `bytes`. */
int segment_check_size(int fd, uint64_t bytes);

#endif
