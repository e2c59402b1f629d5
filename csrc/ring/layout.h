/* The layout of shared memory: the ring segment, the status page and the recorder. README.md draws
 * it and explains the memory ordering.
 *
 * What different processes write lies on different lines of 128 bytes: x86 prefetches cache lines
 * in pairs, and some arm64 cores have lines of 128 bytes. */
#ifndef MPSPMD_RING_LAYOUT_H
#define MPSPMD_RING_LAYOUT_H

#if __SIZEOF_POINTER__ != 8
#error "mpspmd needs a 64-bit system: a ring's cursors and a robust futex's list have 8 bytes"
#endif

#include <linux/futex.h>
#include <stdatomic.h>
#include <stdint.h>

enum {
    LAYOUT_VERSION = 6,
    LAYOUT_LINE = 128,
    RING_MAX_READERS = 64, /* one bit each in bell.parked */
    RECORD_ALIGN = 8,
    METHOD_BYTES = 64, /* a method's name in shared memory, zero-terminated */
    RECORDER_MAX_STEPS = 1 << 20,
    RECORDER_METHODS = 64, /* names that a track can hold */
};

#define RING_MAGIC UINT64_C(0x676e69526d70736d)     /* "mspmRing" */
#define STATUS_MAGIC UINT64_C(0x746174536d70736d)   /* "mspmStat" */
#define RECORDER_MAGIC UINT64_C(0x646365526d70736d) /* "mspmRecd" */

#define OWN_LINE _Alignas(LAYOUT_LINE)

/* An eventcount: where sleepers wait for something to change. */
struct bell {
    OWN_LINE _Atomic uint32_t rung; /* futex word: anybody increments */
    _Atomic uint64_t parked;        /* one bit a sleeper: each sets and clears its own */
};

/* Only lock-free atomics work between processes. */
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2 && ATOMIC_INT_LOCK_FREE == 2, "no lock-free atomics");

enum reader_status { READER_FREE, READER_ATTACHED, READER_DEAD /* final */ };

/* ring_header.state packs three numbers, so that one compare-and-swap sets them all. */
enum ring_state { STATE_OPEN, STATE_CLOSED, STATE_POISONED /* final */ };
#define STATE_PACK(state, code, rank)                                                              \
    ((uint64_t)(state) | (uint64_t)(uint16_t)(code) << 16 | (uint64_t)(uint32_t)(rank) << 32)
#define STATE_OF(word) ((enum ring_state)((word) & 0xffff))
#define STATE_CODE(word) ((uint16_t)((word) >> 16))
#define STATE_RANK(word) ((int32_t)(uint32_t)((word) >> 32))

/* ring_header.claim says who may write. Free and torn: nobody has the ring. Torn: the last writer's
 * message is unfinished, and the next writer has to tell the readers. */
enum ring_claim { CLAIM_FREE, CLAIM_TORN, CLAIM_HELD };
#define CLAIM_BY(pid) ((uint64_t)CLAIM_HELD | (uint64_t)(pid) << 32)
#define CLAIM_OF(word) ((enum ring_claim)((word) & 0xffff))
#define CLAIM_PID(word) ((uint32_t)((word) >> 32))

struct ring_header {
    struct { /* written once, before anyone attaches */
        OWN_LINE uint64_t magic;
        uint32_t version;
        uint32_t n_readers;
        uint64_t capacity;    /* bytes of data: a power of two, at least a page */
        uint64_t data_offset; /* bytes from the segment's start: page-aligned */
    } about;
    struct { /* written by the writer */
        OWN_LINE _Atomic uint64_t tail;
        _Atomic uint64_t published_ns; /* CLOCK_MONOTONIC: when the tail went there, about */
        _Atomic uint64_t claim;        /* compare-and-swap only: when a writer comes and goes */
    };
    struct bell data_bell;           /* readers sleep here, unless the ring has another bell */
    struct bell space_bell;          /* the writer sleeps here, unless the ring has another bell */
    OWN_LINE _Atomic uint64_t want;  /* the head that a sleeping writer waits for */
    OWN_LINE _Atomic uint64_t state; /* compare-and-swap only */
    struct {
        OWN_LINE _Atomic uint64_t head; /* written by this reader */
        _Atomic uint32_t status;        /* compare-and-swap only */
        _Atomic uint32_t pid;
    } readers[];
};

enum record_flags {
    RECORD_PART = 1,  /* a fragment of a message that is larger than a record may be */
    RECORD_FIRST = 2, /* its payload starts with the whole message's length, 8 bytes */
    RECORD_LAST = 4,
    RECORD_ABORT = 8, /* the message whose fragments came last will not be finished */
};

/* Precedes each payload in the data. `kind` and `tag` are the caller's. */
struct record_header {
    uint32_t length; /* payload bytes, without this header and the padding */
    uint16_t kind;
    uint16_t flags;
    uint64_t tag;
};

/* A robust futex that a thread of a process holds for as long as the process lives. */
struct liveness {
    OWN_LINE _Atomic uint32_t word; /* the holder's thread id and FUTEX_WAITERS, or 0; the kernel
                                       puts FUTEX_OWNER_DIED there when the holder ends */
    struct robust_list node;        /* written by the holder: an address in its own memory */
};

/* The counters of a status line, each with one writer. */
enum counter {
    COUNT_REQUESTS,
    COUNT_REPLIES,
    COUNT_BYTES_IN,
    COUNT_BYTES_OUT,
    COUNT_SPINS,  /* waits that ended while spinning, */
    COUNT_YIELDS, /* or while yielding; */
    COUNT_PARKS,  /* sleeps */
    COUNT_EARLY,  /* predicted waits: see strategy.h */
    COUNT_LATE,
    COUNT_MISPREDICTED,
    COUNT_IDLE_NS, /* in PHASE_WAITING, without the wait that goes on */
    N_COUNTERS,
};

/* One rank's line in the status page. Written by that rank alone, read by anybody. */
struct status_line {
    OWN_LINE _Atomic uint32_t sequence; /* odd while step, phase, since and method change */
    _Atomic uint32_t phase;             /* enum status_phase */
    _Atomic uint32_t pid;
    _Atomic uint32_t node; /* which machine of the run `pid` is on; 0: the engine's */
    _Atomic uint64_t step;
    _Atomic uint64_t since_ns; /* CLOCK_MONOTONIC */
    _Atomic uint64_t method[METHOD_BYTES / 8];
    OWN_LINE _Atomic uint64_t counters[N_COUNTERS];
    struct liveness rank_liveness; /* held by the rank, watched by the engine */
    struct liveness
        engine_liveness; /* held by the engine, watched by this rank: the kernel wakes one */
};

enum status_phase { PHASE_LOADING, PHASE_WAITING, PHASE_DECODING, PHASE_RUNNING, PHASE_REPLYING };

/* Threads of the run that poll for longer than a moment. */
struct spinners {
    OWN_LINE _Atomic uint32_t now;
    _Atomic uint32_t allowed; /* one less than the usable cores, which the engine counts */
};

struct status_page {
    struct {
        OWN_LINE uint64_t magic;
        uint32_t version;
        uint32_t n_ranks;
        _Atomic uint32_t engine_pid;
        uint64_t ring_inode;    /* the request ring's: which one it is, to who watches the engine */
        _Atomic uint64_t steps; /* requests sent: written by the engine's sending thread */
        _Atomic uint64_t beat_ns; /* when the engine's supervisor ran last, about once a second, */
        _Atomic uint64_t pending; /* and how many calls weren't done then, */
        _Atomic uint64_t late;    /* and how many replies had come too late */
    } about;
    struct bell engine_bell; /* replies, and space for requests: all that the engine waits for */
    struct spinners spinners;
    struct status_line ranks[];
};

/* What a process knows of one step. A process writes its own track, one thread at a time; anybody
 * reads it. Step s is in the record s modulo the number of records. */
struct step_record {
    _Alignas(64) _Atomic uint32_t sequence; /* odd while the rest changes */
    _Atomic uint32_t method; /* its place in the track's names, plus 1; 0: not known */
    _Atomic uint64_t words[7];
};
_Static_assert(sizeof(struct step_record) == 64, "a record is a cache line");

/* The words of a record. Times are nanoseconds of CLOCK_MONOTONIC; 0: it hasn't happened. */
enum engine_word {
    ENGINE_STEP,
    ENGINE_SENT_NS,
    ENGINE_FIRST_NS, /* the first of the replies was taken from its ring, */
    ENGINE_LAST_NS,  /* and the last so far */
    ENGINE_BYTES_OUT,
    ENGINE_BYTES_IN,
    ENGINE_REPLIES,
};
enum rank_word {
    RANK_STEP,
    RANK_RECEIVED_NS,
    RANK_STARTED_NS, /* the request is decoded, and the method is called */
    RANK_FINISHED_NS,
    RANK_REPLIED_NS,
    RANK_BYTES, /* of the request, and of the reply in the upper half: at most 2^32 - 1 each */
    RANK_COLLECTIVE_NS,
};

struct track_names {
    OWN_LINE _Atomic uint32_t n; /* so many are complete, and won't change */
    OWN_LINE char names[RECORDER_METHODS][METHOD_BYTES];
};

/* After it: the names of all tracks, and then the records of all tracks. Track 0 is the engine's,
 * and track r + 1 is rank r's. */
struct recorder_header {
    OWN_LINE uint64_t magic;
    uint32_t version;
    uint32_t n_tracks;
    uint64_t n_steps;    /* records of a track: a power of two */
    uint64_t ring_inode; /* the request ring's, as in the status page */
    uint32_t engine_pid;
};

#endif
