/* A ring's segment: its header, and a process's mapping of it. */
#ifndef MPSPMD_RING_RING_MAP_H
#define MPSPMD_RING_RING_MAP_H

#include "ring/ring.h"

bool ring_shape_is_valid(uint64_t capacity, uint32_t n_readers);
size_t ring_segment_bytes(uint64_t capacity, uint32_t n_readers);

/* Writes the header into a segment of zeros. 0, or an errno value. */
int ring_format(int fd, uint64_t capacity, uint32_t n_readers);

/* Maps a formatted segment; the bells stay the ring's own where NULL is given. Every mapping of a
 * ring, in whatever process, must be given the same bells. 0, or an errno value: EPROTO when the
 * segment isn't a ring of this version, EINVAL when readers would share a bell's bits: only a ring
 * of one reader may have its data bell elsewhere. */
int ring_map(struct ring *ring, int fd, struct bell *data_bell, struct bell *space_bell);
void ring_unmap(struct ring *ring);

/* The cursors of a ring that somebody else uses, without mapping it. `heads` has room for
 * RING_MAX_READERS. 0, or an errno value: EPROTO when the segment isn't a ring of this version. */
int ring_look(int fd, uint64_t *capacity, uint32_t *n_readers, uint64_t *tail, uint64_t *heads,
              uint64_t *published_ns);

#endif
