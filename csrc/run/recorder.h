/* The recorder: when what happened in the last steps, in the engine and in each rank.
 *
 * Each process has a track and writes it, one thread at a time; in Python the interpreter's lock
 * sees to that. Any process may read any track at any time. README.md says why a reader never
 * gets a mixture of two steps. */
#ifndef MPSPMD_RUN_RECORDER_H
#define MPSPMD_RUN_RECORDER_H

#include <stdbool.h>
#include <stddef.h>

#include "ring/layout.h"

/* One process's mapping. */
struct recorder {
    struct recorder_header *shared;
    uint32_t n_tracks; /* as they were checked: others may write into the segment */
    uint64_t n_steps;
    bool writable;
};

/* Whether there can be such a recorder. */
bool recorder_is_valid(uint32_t n_tracks, uint64_t n_steps);
size_t recorder_segment_bytes(uint32_t n_tracks, uint64_t n_steps);

/* Writes the header into a segment of zeros. 0, or an errno value: EINVAL when such a recorder
 * isn't valid. */
int recorder_format(int fd, uint32_t n_tracks, uint64_t n_steps, uint32_t engine_pid,
                    uint64_t ring_inode);

/* Read-only when the descriptor is. 0, or an errno value: EPROTO when the segment isn't a recorder
 * of this version. */
int recorder_map(struct recorder *recorder, int fd);
void recorder_unmap(struct recorder *recorder);

/* A consistent copy of one record, or, if its writer was killed while it wrote, one with an odd
 * sequence. */
struct step_copy {
    uint32_t sequence, method;
    uint64_t words[7];
};
void recorder_read(const struct recorder *recorder, uint32_t track, uint64_t step,
                   struct step_copy *copy);

/* recorder_segment_bytes() bytes of the same layout, in which each record is consistent. `copy`
 * may have any alignment. */
void recorder_copy(const struct recorder *recorder, unsigned char *copy);

/* The end that a process writes. */
struct track {
    struct track_names *names;
    struct step_record *records;
    uint64_t mask;
    uint64_t step;   /* the rank's main thread is in this one */
    uint64_t bytes;  /* of its request, unless they are in its record already */
    uint32_t method; /* of the last step, as in its record */
    uint32_t depth;  /* of the collectives that the rank is in */
    uint64_t collective_since_ns;
    bool paused;
};

void track_init(struct track *track, const struct recorder *recorder, uint32_t index);

/* Whoever calls one of the functions below asks track_is_on() first, so that a paused track costs
 * as little as none. The step in which this changes is recorded in part. */
void track_pause(struct track *track, bool paused);
static inline bool track_is_on(const struct track *track) {
    return track && !track->paused;
}

/* The engine: a request of so many bytes is in the ring; a reply to it was taken out of one. */
void track_sent(struct track *track, uint64_t step, uint64_t bytes, uint64_t now_ns);
void track_taken(struct track *track, uint64_t step, uint64_t bytes, uint64_t now_ns);

/* A rank: a request has come, which the method may follow at once or after some decoding; its reply
 * is in the ring. */
void track_received_whole(struct track *track, uint64_t step, uint64_t bytes);
void track_received(struct track *track, uint64_t step, uint64_t bytes, uint64_t now_ns);
void track_replied(struct track *track, uint64_t step, uint64_t bytes, uint64_t now_ns);

/* A rank has begun another phase, as for status_enter(). */
void track_enter(struct track *track, enum status_phase phase, uint64_t step, const char *method,
                 size_t method_bytes, uint64_t now_ns);

/* The rank's method begins to wait for other ranks, or ends it. Pairs may be nested. */
void track_enter_collective(struct track *track, uint64_t now_ns);
void track_exit_collective(struct track *track, uint64_t now_ns);

#endif
