/* The ring's protocol for spin: one writer, two readers, a ring of two records.
 *
 * Checked in all interleavings: no wake-up is lost (everybody ends: no invalid end state), nothing unread
 * is overwritten, every reader gets every record. The names are those of csrc/; each step is one access
 * to shared memory. verify.sh compiles it once as it is, and once for each mutant (-D…), which must fail.
 *
 * spin alone is sequentially consistent. A processor isn't: a store waits in its buffer while later loads
 * go ahead. So what isn't a sequentially consistent store goes into a buffer here, and `drain` moves it
 * to memory at any later time, in order (x86) or, for the relaxed mutants, in any order. A sequentially
 * consistent store and a read-modify-write empty the buffer first. */

#ifndef CAPACITY
#define CAPACITY 1
#endif
#define READERS 2
#ifndef MESSAGES
#define MESSAGES 3
#endif

#define OPEN 0
#define CLOSED 1
#define POISONED 2

/* Shared memory. */
byte tail;
byte head[READERS];
byte data[CAPACITY];
byte state;
bool dead[READERS];
byte data_rung, space_rung;
bool parked[READERS];
bool writer_parked;
byte want;

/* The kernel: who sleeps on which futex word. */
bool asleep[READERS];
bool writer_asleep;

/* Store buffers: the writer's data and tail, each reader's head. */
bool data_waits, tail_waits, head_waits[READERS];
byte data_at, data_value, tail_value, head_value[READERS];

bool killed; /* reader 1 */

#define DRAIN_DATA  data_waits -> data[data_at] = data_value; data_waits = false; data_at = 0; data_value = 0
#define DRAIN_TAIL  tail_waits -> tail = tail_value; tail_waits = false; tail_value = 0
#define DRAIN_HEAD(r) head_waits[r] -> head[r] = head_value[r]; head_waits[r] = false; head_value[r] = 0

active proctype drain() {
end:
    do
    :: atomic { DRAIN_DATA }
#ifdef TAIL_RELAXED
    :: atomic { DRAIN_TAIL }
#else
    :: atomic { !data_waits && DRAIN_TAIL }
#endif
    :: atomic { DRAIN_HEAD(0) }
    :: atomic { DRAIN_HEAD(1) }
    od
}

/* A sequentially consistent store, or a read-modify-write, of the writer's: its buffer is empty then. */
#define WRITER_FENCE !data_waits && !tail_waits
#define READER_FENCE(r) !head_waits[r]

inline wake_readers() {
#ifdef WAKE_ONE
    atomic {
        if
        :: asleep[0] -> asleep[0] = false
        :: else -> asleep[1] = false
        fi
    }
#else
    atomic { asleep[0] = false; asleep[1] = false }
#endif
}

inline ring_data_bell() {
#ifdef WAKE_BEFORE_INCREMENT
    wake_readers();
    data_rung++
#else
#ifndef NO_INCREMENT
    data_rung++;
#endif
    wake_readers()
#endif
}

inline ring_space_bell() {
#ifndef NO_INCREMENT
    space_rung++;
#endif
    writer_asleep = false
}

/* The smallest head of the living readers, looked at one after the other. */
inline scan_limit() {
    slowest = my_tail;
#ifndef SCAN_IGNORES_A_READER
    if
    :: dead[0] -> skip
    :: else -> if :: head[0] < slowest -> slowest = head[0] :: else fi
    fi;
#endif
    if
#ifndef SCAN_WAITS_FOR_THE_DEAD
    :: dead[1] -> skip
#endif
    :: else -> if :: head[1] < slowest -> slowest = head[1] :: else fi
    fi;
    limit = slowest + CAPACITY;
    slowest = 0 /* states that differ only in what is dead are one */
}

#define WRITABLE (my_tail + 1 <= limit || state != OPEN)

active proctype writer() {
    byte my_tail, limit, slowest, seen;
    limit = CAPACITY;
    do
    :: my_tail == MESSAGES -> break
    :: else ->
        if
        :: state != OPEN -> break
        :: else
        fi;
        scan_limit();
        if
        :: my_tail + 1 <= limit -> goto publish
        :: else
        fi;
        want = my_tail + 1 - CAPACITY;
park:
#ifdef BIT_AFTER_LOOK
        scan_limit();
        if :: WRITABLE -> goto again :: else fi;
        writer_parked = true;
        seen = space_rung;
#else
        writer_parked = true;
#ifndef SEEN_AFTER_LOOK
        seen = space_rung;
#endif
#ifndef NO_SECOND_LOOK
        scan_limit();
        if :: WRITABLE -> goto again :: else fi;
#endif
#ifdef SEEN_AFTER_LOOK
        seen = space_rung;
#endif
#endif
        atomic { writer_asleep = (space_rung == seen); seen = 0 };
        !writer_asleep;
        writer_parked = false;
        scan_limit();
        if :: WRITABLE -> goto again :: else -> goto park fi;
again:
        seen = 0;
        writer_parked = false;
        if
        :: state != OPEN -> break
        :: else
        fi;
publish:
        /* Nothing that a living reader has not read is overwritten. */
        assert(dead[0] || killed || my_tail - head[0] < CAPACITY);
        assert(dead[1] || killed || my_tail - head[1] < CAPACITY);
        atomic { !data_waits; data_waits = true; data_at = my_tail % CAPACITY; data_value = my_tail + 1 };
        my_tail++;
#if defined(TAIL_RELEASED) || defined(TAIL_RELAXED)
        atomic { !tail_waits; tail_waits = true; tail_value = my_tail };
#else
        atomic { WRITER_FENCE -> tail = my_tail };
#endif
#ifdef NOTIFY_WITHOUT_LOOKING_AT_ONE
        if :: parked[0] -> ring_data_bell() :: else fi
#else
        if
        :: parked[0] -> ring_data_bell()
        :: else -> if :: parked[1] -> ring_data_bell() :: else fi
        fi
#endif
    od;
#ifndef POISON /* a writer that has nothing more to send, and readers that wait for it */
    atomic { WRITER_FENCE -> if :: state == OPEN -> state = CLOSED :: else fi };
#ifndef CLOSE_WITHOUT_RINGING
    ring_data_bell();
    ring_space_bell()
#endif
#endif
}

#define READABLE(r) (tail != my_head || state != OPEN || dead[r])

proctype reader(byte r) {
    byte my_head, seen;
    {
    do
    :: dead[r] -> break
    :: else ->
        if
        :: tail != my_head ->
            assert(data[my_head % CAPACITY] == my_head + 1);
            my_head++;
#ifdef HEAD_RELEASED
            atomic { !head_waits[r]; head_waits[r] = true; head_value[r] = my_head };
#else
            atomic { READER_FENCE(r) -> head[r] = my_head };
#endif
            if
            :: writer_parked ->
                if
#ifdef CROSSING_MUST_GO_BEYOND
                :: my_head - 1 < want && want < my_head -> ring_space_bell()
#else
                :: my_head - 1 < want && want <= my_head -> ring_space_bell()
#endif
                :: else
                fi
            :: else
            fi
        :: else ->
            if
            :: state != OPEN ->
#ifndef CLOSED_WITHOUT_A_LAST_LOOK
                /* The last record may have come between the two looks. */
                if :: tail != my_head -> goto next :: else fi;
#endif
                assert(state == POISONED || my_head == MESSAGES);
                break
            :: else
            fi;
#ifdef BIT_AFTER_LOOK
            if :: READABLE(r) -> goto next :: else fi;
            atomic { READER_FENCE(r) -> parked[r] = true };
            seen = data_rung;
#else
            atomic { READER_FENCE(r) -> parked[r] = true };
#ifndef SEEN_AFTER_LOOK
            seen = data_rung;
#endif
#ifndef NO_SECOND_LOOK
            if :: READABLE(r) -> seen = 0; parked[r] = false; goto next :: else fi;
#endif
#ifdef SEEN_AFTER_LOOK
            seen = data_rung;
#endif
#endif
            atomic { asleep[r] = (data_rung == seen); seen = 0 };
            !asleep[r];
            parked[r] = false
        fi;
next:   skip
    od
    } unless { killed && r == 1 }
}

/* The engine's supervisor: reader 1 may be killed at any moment, and is marked dead afterwards. */
active proctype killer() {
    if
#ifndef POISON
    :: skip
#endif
#ifdef KILL
    :: killed = true;
        dead[1] = true;
        parked[1] = false;
#ifndef DEATH_WITHOUT_RINGING
        ring_data_bell();
        ring_space_bell()
#endif
#endif
#ifdef POISON
    :: state = POISONED;
#ifndef POISON_WITHOUT_RINGING
        ring_data_bell();
        ring_space_bell()
#endif
#endif
    fi
}

init { atomic { run reader(0); run reader(1) } }
