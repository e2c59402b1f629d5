#include "run/recorder.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#include "ring/segment.h"

enum { TRIES = 10000 };

bool recorder_is_valid(uint32_t n_tracks, uint64_t n_steps) {
    return n_tracks >= 2 && n_tracks <= RING_MAX_READERS + 1 && n_steps >= 2 &&
           n_steps <= RECORDER_MAX_STEPS && (n_steps & (n_steps - 1)) == 0;
}

static size_t records_offset(uint32_t n_tracks) {
    return sizeof(struct recorder_header) + n_tracks * sizeof(struct track_names);
}

size_t recorder_segment_bytes(uint32_t n_tracks, uint64_t n_steps) {
    return records_offset(n_tracks) + n_tracks * n_steps * sizeof(struct step_record);
}

int recorder_format(int fd, uint32_t n_tracks, uint64_t n_steps, uint32_t engine_pid,
                    uint64_t ring_inode) {
    if (!recorder_is_valid(n_tracks, n_steps))
        return EINVAL;
    void *memory;
    size_t bytes = sizeof(struct recorder_header);
    int error = segment_map_new(fd, bytes, recorder_segment_bytes(n_tracks, n_steps), &memory);
    if (error)
        return error;
    *(struct recorder_header *)memory = (struct recorder_header){
        .magic = RECORDER_MAGIC,
        .version = LAYOUT_VERSION,
        .n_tracks = n_tracks,
        .n_steps = n_steps,
        .ring_inode = ring_inode,
        .engine_pid = engine_pid,
    };
    munmap(memory, bytes);
    return 0;
}

int recorder_map(struct recorder *recorder, int fd) {
    struct recorder_header head;
    int error = segment_read_about(fd, &head, sizeof head, RECORDER_MAGIC);
    if (error)
        return error;
    if (!recorder_is_valid(head.n_tracks, head.n_steps))
        return EPROTO;
    size_t bytes = recorder_segment_bytes(head.n_tracks, head.n_steps);
    error = segment_check_size(fd, bytes);
    if (error)
        return error;
    bool writable = (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDWR;
    int access = PROT_READ | (writable ? PROT_WRITE : 0);
    void *memory = mmap(NULL, bytes, access, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED)
        return errno;
    /* A forked child is none of the run's processes. */
    if (madvise(memory, bytes, MADV_DONTFORK) != 0) {
        error = errno;
        munmap(memory, bytes);
        return error;
    }
    *recorder = (struct recorder){
        .shared = memory,
        .n_tracks = head.n_tracks,
        .n_steps = head.n_steps,
        .writable = writable,
    };
    return 0;
}

void recorder_unmap(struct recorder *recorder) {
    if (recorder->shared)
        munmap(recorder->shared, recorder_segment_bytes(recorder->n_tracks, recorder->n_steps));
    recorder->shared = NULL;
}

static struct track_names *names_of(const struct recorder *recorder, uint32_t index) {
    return (struct track_names *)(recorder->shared + 1) + index;
}

static struct step_record *records_of(const struct recorder *recorder, uint32_t index) {
    unsigned char *records = (unsigned char *)recorder->shared + records_offset(recorder->n_tracks);
    return (struct step_record *)records + index * recorder->n_steps;
}

/* As status_read(): each load is an acquire, so that the second load of the sequence comes after
 * those of the words. */
static void read_record(const struct step_record *record, struct step_copy *copy) {
    uint32_t after;
    int tries = 0;
    do {
        copy->sequence = atomic_load_explicit(&record->sequence, memory_order_acquire);
        copy->method = atomic_load_explicit(&record->method, memory_order_acquire);
        for (int i = 0; i < 7; i++)
            copy->words[i] = atomic_load_explicit(&record->words[i], memory_order_acquire);
        after = atomic_load_explicit(&record->sequence, memory_order_acquire);
    } while ((copy->sequence != after || after & 1) && ++tries < TRIES);
    if (tries == TRIES)
        copy->sequence |= 1;
}

void recorder_read(const struct recorder *recorder, uint32_t track, uint64_t step,
                   struct step_copy *copy) {
    read_record(&records_of(recorder, track)[step & (recorder->n_steps - 1)], copy);
}

void recorder_copy(const struct recorder *recorder, unsigned char *copy) {
    struct recorder_header header = *recorder->shared;
    header.n_tracks = recorder->n_tracks; /* not what somebody may have written there since */
    header.n_steps = recorder->n_steps;
    memset(copy, 0, records_offset(recorder->n_tracks));
    memcpy(copy, &header, sizeof header);
    copy += sizeof header;
    for (uint32_t i = 0; i < recorder->n_tracks; i++, copy += sizeof(struct track_names)) {
        const struct track_names *names = names_of(recorder, i);
        uint32_t n = atomic_load_explicit(&names->n, memory_order_acquire);
        n = n < RECORDER_METHODS ? n : RECORDER_METHODS;
        memcpy(copy + offsetof(struct track_names, n), &n, sizeof n);
        memcpy(copy + offsetof(struct track_names, names), names->names,
               n * sizeof names->names[0]);
    }
    for (uint64_t i = 0; i < recorder->n_tracks * recorder->n_steps; i++) {
        struct step_copy record;
        read_record(&records_of(recorder, 0)[i], &record);
        memcpy(copy + i * sizeof record, &record, sizeof record);
    }
}

void track_init(struct track *track, const struct recorder *recorder, uint32_t index) {
    *track = (struct track){
        .names = names_of(recorder, index),
        .records = records_of(recorder, index),
        .mask = recorder->n_steps - 1,
    };
}

void track_pause(struct track *track, bool paused) {
    track->paused = paused;
    track->step = 0; /* the next phase doesn't finish a step from before the pause */
}

/* The writes of one record. Between begin() and end() its sequence is odd. Each store in between is
 * a release: a reader that sees one of them also sees the odd number, and reads again. */
static uint32_t begin(struct step_record *record) {
    uint32_t sequence = atomic_load_explicit(&record->sequence, memory_order_relaxed) & ~1u;
    atomic_store_explicit(&record->sequence, sequence + 1, memory_order_relaxed);
    return sequence + 2;
}

static void end(struct step_record *record, uint32_t sequence) {
    atomic_store_explicit(&record->sequence, sequence, memory_order_release);
}

static void set(struct step_record *record, int word, uint64_t value) {
    atomic_store_explicit(&record->words[word], value, memory_order_release);
}

/* The record of the next step was written a lap ago. */
static void prefetch_next(const struct track *track, uint64_t step) {
    __builtin_prefetch(&track->records[(step + 1) & track->mask], 1);
}

static uint64_t get(const struct step_record *record, int word) {
    return atomic_load_explicit(&record->words[word], memory_order_relaxed);
}

/* The record of a step, empty if it is the first that is noted of it; begin() has been called. NULL
 * if a later step has replaced it. */
static struct step_record *open_record(struct track *track, uint64_t step, uint32_t *sequence) {
    struct step_record *record = &track->records[step & track->mask];
    uint64_t there = get(record, ENGINE_STEP);
    if (there > step)
        return NULL;
    *sequence = begin(record);
    if (there < step) {
        atomic_store_explicit(&record->method, 0, memory_order_release);
        set(record, ENGINE_STEP, step);
        for (int i = 1; i < 7; i++)
            set(record, i, 0);
    }
    return record;
}

void track_sent(struct track *track, uint64_t step, uint64_t bytes, uint64_t now_ns) {
    uint32_t sequence;
    struct step_record *record = open_record(track, step, &sequence);
    if (!record)
        return;
    set(record, ENGINE_SENT_NS, now_ns);
    set(record, ENGINE_BYTES_OUT, bytes);
    end(record, sequence);
    prefetch_next(track, step);
}

void track_taken(struct track *track, uint64_t step, uint64_t bytes, uint64_t now_ns) {
    uint32_t sequence;
    struct step_record *record = open_record(track, step, &sequence);
    if (!record)
        return;
    if (get(record, ENGINE_FIRST_NS) == 0)
        set(record, ENGINE_FIRST_NS, now_ns);
    set(record, ENGINE_LAST_NS, now_ns);
    set(record, ENGINE_BYTES_IN, get(record, ENGINE_BYTES_IN) + bytes);
    set(record, ENGINE_REPLIES, get(record, ENGINE_REPLIES) + 1);
    end(record, sequence);
}

static uint64_t capped(uint64_t bytes) {
    return bytes < UINT32_MAX ? bytes : UINT32_MAX;
}

void track_received_whole(struct track *track, uint64_t step, uint64_t bytes) {
    /* Noted when the method starts, so that the clock is read once and the record is written once.
     */
    track->step = step;
    track->bytes = bytes;
}

void track_received(struct track *track, uint64_t step, uint64_t bytes, uint64_t now_ns) {
    uint32_t sequence;
    struct step_record *record = open_record(track, step, &sequence);
    if (!record)
        return;
    track->step = step;
    track->bytes = 0;
    set(record, RANK_RECEIVED_NS, now_ns);
    set(record, RANK_BYTES, capped(bytes));
    end(record, sequence);
}

void track_replied(struct track *track, uint64_t step, uint64_t bytes, uint64_t now_ns) {
    uint32_t sequence;
    struct step_record *record = open_record(track, step, &sequence);
    if (!record)
        return;
    set(record, RANK_REPLIED_NS, now_ns);
    set(record, RANK_BYTES, (get(record, RANK_BYTES) & UINT32_MAX) | capped(bytes) << 32);
    end(record, sequence);
}

/* The place of a method's name, plus 1, which is added if it is new; 0 if there are too many. */
static uint32_t place_of(struct track *track, const char *method, size_t bytes) {
    /* Mostly it is the last one again. */
    if (track->method && bytes < METHOD_BYTES) {
        const char *last = track->names->names[track->method - 1];
        if (memcmp(last, method, bytes) == 0 && last[bytes] == 0)
            return track->method;
    }
    char name[METHOD_BYTES] = {0};
    memcpy(name, method, bytes < METHOD_BYTES ? bytes : METHOD_BYTES - 1);
    struct track_names *names = track->names;
    uint32_t n = atomic_load_explicit(&names->n, memory_order_relaxed);
    for (uint32_t i = 0; i < n && i < RECORDER_METHODS; i++)
        if (memcmp(names->names[i], name, sizeof name) == 0)
            return i + 1;
    if (n >= RECORDER_METHODS)
        return 0;
    memcpy(names->names[n], name, sizeof name);
    /* Release: whoever sees this number sees the name. */
    atomic_store_explicit(&names->n, n + 1, memory_order_release);
    return n + 1;
}

static void finish(struct track *track, uint64_t now_ns) {
    uint32_t sequence;
    struct step_record *record = &track->records[track->step & track->mask];
    if (track->step == 0 || get(record, RANK_FINISHED_NS) != 0)
        return;
    record = open_record(track, track->step, &sequence);
    if (!record)
        return;
    set(record, RANK_FINISHED_NS, now_ns);
    end(record, sequence);
}

void track_enter(struct track *track, enum status_phase phase, uint64_t step, const char *method,
                 size_t method_bytes, uint64_t now_ns) {
    uint32_t sequence;
    struct step_record *record;
    switch (phase) {
    case PHASE_RUNNING:
        track->step = step;
        track->depth = 0;
        record = open_record(track, step, &sequence);
        if (!record)
            return;
        track->method = place_of(track, method, method_bytes);
        atomic_store_explicit(&record->method, track->method, memory_order_release);
        if (track->bytes) {
            set(record, RANK_RECEIVED_NS, now_ns);
            set(record, RANK_BYTES, capped(track->bytes));
        }
        set(record, RANK_STARTED_NS, now_ns);
        end(record, sequence);
        break;
    case PHASE_REPLYING:
        finish(track, now_ns);
        break;
    case PHASE_WAITING: /* every rank waits; not every rank replies */
        finish(track, now_ns);
        prefetch_next(track, track->step);
        break;
    case PHASE_LOADING:
    case PHASE_DECODING:
        break;
    }
}

void track_enter_collective(struct track *track, uint64_t now_ns) {
    if (track->depth++ == 0)
        track->collective_since_ns = now_ns;
}

void track_exit_collective(struct track *track, uint64_t now_ns) {
    uint32_t sequence;
    if (track->depth == 0 || --track->depth > 0)
        return;
    struct step_record *record = open_record(track, track->step, &sequence);
    if (!record)
        return;
    uint64_t before = get(record, RANK_COLLECTIVE_NS);
    set(record, RANK_COLLECTIVE_NS, before + now_ns - track->collective_since_ns);
    end(record, sequence);
}
