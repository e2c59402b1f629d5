/* The ring's protocol for spin: one writer, or one after the other, two readers, a ring of two records (of
 * one where a reader is killed, because it may be killed at any step).
 *
 * Verified: nobody sleeps for ever (an invalid end state), no record is overwritten before it has been
 * read, none is missed, and whoever is told that the ring is closed has read all of it. There is one writer
 * at a time, and no reader takes a part of one message for a part of another.
 *
 * Memory is that of x86. A plain store, and one with release, goes into the process's store buffer, which
 * memory takes over in order at any later time. A sequentially consistent store (`xchg`) and a
 * read-modify-write wait until the own buffer is empty, and then change memory at once. So only mutants
 * ever have anything in a buffer, but for a record's bytes; those are stored at once here, which is the
 * earliest that they can overwrite anything, and nobody looks at them before the tail says so. A process
 * never loads what it stores itself through its buffer: it knows it.
 *
 * A step of the model is one access to shared memory, with what the process does by itself around it.
 * verify.sh searches this as it is for each ENDING, and with each MUTANT, which must fail. */

#define READERS 2

/* How the run ends. */
#define CLOSE 1
#define POISON 2
#define KILL 3  /* reader 1, at any moment; then as CLOSE */
#define DRAIN 4 /* nobody ends it: the readers leave with the last record, so that none may be missed */
#define HANDOVER 5 /* as DRAIN, with two writers that come at once; one may leave before its next record */
#ifndef ENDING
#define ENDING CLOSE
#endif
#define IMPATIENT (ENDING == HANDOVER) /* to have fewer states */
#if ENDING == KILL
#define CAPACITY 1
#define MESSAGES 2
#else
#define CAPACITY 2
#define MESSAGES 3
#endif

/* Each takes one part of the protocol away. */
#define NONE 0
#define TAIL_WITHOUT_FENCE 1
#define HEAD_WITHOUT_FENCE 2
#define SPACE_BIT_NEVER_SET 3
#define NO_INCREMENT 4
#define INCREMENT_AFTER_WAKE 5
#define WAKES_ONE 6
#define SEEN_AFTER_THE_LOOK 7
#define NO_SECOND_LOOK 8
#define NO_NOTIFY 9
#define NOTIFY_BEFORE_TAIL 10
#define SCAN_SKIPS_A_READER 11
#define CROSSING_MUST_GO_BEYOND 12
#define SILENT_END 13
#define CLOSED_WITHOUT_LAST_LOOK 14
#define SILENT_DEATH 15
#define SCAN_WAITS_FOR_THE_DEAD 16
#define WANT_AFTER_THE_LOOK 17
#define CLAIM_WITHOUT_COMPARING 18
#define RELEASE_FORGETS_TORN 19
#define SUCCESSOR_FORGETS_TORN 20
#ifndef MUTANT
#define MUTANT NONE
#endif

byte tail, want, state;
byte head[READERS];
byte data[CAPACITY];

/* What a record is: a whole message, one of the two fragments of a message, or that this one won't come. */
#define WHOLE 0
#define FIRST 1
#define LAST 2
#define ABORT 3
byte part[CAPACITY];

/* ring_header.claim */
#define FREE 0
#define TORN 1
#define HELD 2
byte claim, writers;

bool dead[READERS];
bool killed;

/* Two bells: readers sleep on DATA, the writer on SPACE. What counts of `rung` is whether it has changed
 * since a process has noted it. */
#define DATA 0
#define SPACE 1
#define WRITER READERS
bool unchanged[READERS + 1];
byte parked[2];
bool asleep[READERS + 1]; /* in the kernel's queue */

/* Store buffers: which variable, index, value. */
#define TAIL 1
#define HEAD 2
chan buffer[READERS + 2] = [2] of { byte, byte, byte };

proctype Memory(byte owner) {
    byte what, index, value;
end:
    do
    :: atomic { buffer[owner] ? what, index, value ->
        if
        :: what == TAIL -> tail = value
        :: what == HEAD -> head[index] = value
        fi;
        what = 0; index = 0; value = 0 }
    od
}

#define bit(me) (1 << (me))
#define drained(me) empty(buffer[me])

inline increment(me, bell) {
    atomic { drained(me) ->
        if
        :: bell == SPACE -> unchanged[WRITER] = false
        :: bell == DATA -> unchanged[0] = false; unchanged[1] = false
        fi }
}

inline wake(bell) {
    d_step {
        if
        :: bell == SPACE -> asleep[WRITER] = false
#if MUTANT == WAKES_ONE
        :: bell == DATA && asleep[0] -> asleep[0] = false
        :: bell == DATA && !asleep[0] -> asleep[1] = false
#else
        :: bell == DATA -> asleep[0] = false; asleep[1] = false
#endif
        fi
    }
}

/* bell_ring() */
inline ring(me, bell) {
#if MUTANT == INCREMENT_AFTER_WAKE
    wake(bell);
    increment(me, bell)
#elif MUTANT == NO_INCREMENT
    wake(bell)
#else
    increment(me, bell);
    wake(bell)
#endif
}

/* bell_prepare(): sets the own bit, and then notes how often the bell has been rung. */
inline prepare(me, bell) {
    atomic { drained(me) -> parked[bell] = parked[bell] | bit(me) };
    unchanged[me] = true
}

/* bell_sleep(): the kernel compares and queues in one step. */
inline queue_unless_rung(me) {
    atomic { asleep[me] = unchanged[me]; unchanged[me] = false }
}

inline sleep_unless_rung(me) {
    queue_unless_rung(me);
    (!asleep[me])
}

inline leave(me, bell) {
    atomic { drained(me) -> parked[bell] = parked[bell] & (7 - bit(me)) }
}

/* The smallest head of those that aren't dead; `mine` where all are. */
#if MUTANT == SCAN_SKIPS_A_READER
#define counts(reader) (reader != 0)
#elif MUTANT == SCAN_WAITS_FOR_THE_DEAD
#define counts(reader) true
#else
#define counts(reader) (!dead[reader])
#endif
inline scan(mine, smallest) {
    atomic { smallest = (counts(0) && head[0] < mine -> head[0] : mine) };
    atomic { smallest = (counts(1) && head[1] < smallest -> head[1] : smallest) }
}

/* ring_writer_init(): a compare-and-swap, then the tail that the writer before has left. */
inline take_ring() {
#if MUTANT == CLAIM_WITHOUT_COMPARING
    (claim != HELD);
    claim = HELD;
#else
    atomic { claim != HELD -> torn = (claim == TORN); claim = HELD };
#endif
#if MUTANT == SUCCESSOR_FORGETS_TORN
    torn = false;
#endif
    atomic { writers++; assert(writers == 1); mine = tail };
    smallest = (mine < CAPACITY -> 0 : mine - CAPACITY) /* as if the ring were full: scanned first */
}

/* ring_writer_release() */
inline give_ring_back() {
    writers--;
#if MUTANT == RELEASE_FORGETS_TORN
    atomic { drained(WRITER) -> claim = FREE }
#else
    atomic { drained(WRITER) -> claim = (torn || begun -> TORN : FREE) }
#endif
}

/* What goes next; any message may have two fragments. */
inline choose_part(what) {
    if
    :: torn -> atomic { what = ABORT; torn = false }
    :: begun -> atomic { what = LAST; begun = false }
    :: !torn && !begun -> what = WHOLE
    :: !torn && !begun && ENDING == HANDOVER && mine + 1 < MESSAGES -> atomic { what = FIRST; begun = true }
    fi
}

proctype Writer(bool may_leave) {
    byte mine, smallest, what;
    bool torn, begun, hasty = IMPATIENT;
    take_ring();
    do
    :: mine == MESSAGES -> break
    :: mine < MESSAGES && may_leave -> break
    :: mine < MESSAGES && mine - smallest >= CAPACITY ->
        scan(mine, smallest);
        if
        :: state == POISON -> goto done
        :: state != POISON && mine - smallest < CAPACITY -> skip
        :: state != POISON && mine - smallest >= CAPACITY ->
            /* Half of the ring here, a quarter in fact; and when that doesn't come, what it needs. */
#define wanted (mine + (hasty -> 1 : CAPACITY) - CAPACITY)
#if MUTANT != WANT_AFTER_THE_LOOK
            atomic { drained(WRITER) -> want = wanted };
#endif
#if MUTANT == SPACE_BIT_NEVER_SET
            unchanged[WRITER] = true;
#else
            prepare(WRITER, SPACE);
#endif
#if MUTANT != NO_SECOND_LOOK
            scan(mine, smallest);
#endif
            if
            :: MUTANT != NO_SECOND_LOOK && (state == POISON || mine - smallest < CAPACITY) -> skip
            :: else ->
#if MUTANT == WANT_AFTER_THE_LOOK
                atomic { drained(WRITER) -> want = wanted };
#endif
#if MUTANT == SEEN_AFTER_THE_LOOK
                unchanged[WRITER] = true;
#endif
                queue_unless_rung(WRITER);
                if
                :: !asleep[WRITER] -> skip
                :: !hasty -> atomic { asleep[WRITER] = false; hasty = true }
                fi
            fi;
            leave(WRITER, SPACE)
        fi
    :: mine < MESSAGES && mine - smallest < CAPACITY ->
#if MUTANT == NOTIFY_BEFORE_TAIL
        if
        :: parked[DATA] -> ring(WRITER, DATA)
        :: else -> skip
        fi;
#endif
        choose_part(what);
        atomic { data[mine % CAPACITY] = mine; part[mine % CAPACITY] = what; what = 0; hasty = IMPATIENT };
#if MUTANT == TAIL_WITHOUT_FENCE
        atomic { buffer[WRITER] ! TAIL, 0, mine + 1; mine++ };
#else
        atomic { drained(WRITER) -> tail = mine + 1; mine++ };
#endif
#if MUTANT != NO_NOTIFY && MUTANT != NOTIFY_BEFORE_TAIL
        if
        :: parked[DATA] -> ring(WRITER, DATA)
        :: else -> skip
        fi
#endif
    od;
    give_ring_back();
#if ENDING == CLOSE || ENDING == KILL
    atomic { drained(WRITER) -> state = CLOSE };
#if MUTANT != SILENT_END
    ring(WRITER, DATA);
    ring(WRITER, SPACE);
#endif
#endif
done:
    skip
}

/* in_sequence() */
inline take_part(what) {
    assert(assembling == (what == LAST || what == ABORT));
    assembling = (what == FIRST)
}

proctype Reader(byte me) {
    byte mine, known, ended;
    bool assembling;
    {
        do
        :: mine < known ->
            atomic { assert(data[mine % CAPACITY] == mine); take_part(part[mine % CAPACITY]); mine++ };
#if MUTANT == HEAD_WITHOUT_FENCE
            buffer[me] ! HEAD, me, mine;
#else
            atomic { drained(me) -> head[me] = mine };
#endif
            if
            :: parked[SPACE] ->
                if
#if MUTANT != CROSSING_MUST_GO_BEYOND
                :: want == mine -> ring(me, SPACE)
#endif
                :: else -> skip
                fi
            :: else -> skip
            fi
#if ENDING == DRAIN || ENDING == HANDOVER
        :: mine == MESSAGES -> break
#endif
        :: mine == known && ((ENDING != DRAIN && ENDING != HANDOVER) || mine < MESSAGES) ->
            known = tail;
            if
            :: known > mine -> skip
            :: known == mine && state != 0 ->
                atomic { ended = state;
#if MUTANT != CLOSED_WITHOUT_LAST_LOOK
                    known = tail /* the last record may have come between the two looks */
#endif
                };
                if
                :: known == mine -> break
                :: else -> skip
                fi
            :: known == mine && state == 0 ->
                prepare(me, DATA);
#if MUTANT != NO_SECOND_LOOK
                known = tail;
#endif
                if
                :: MUTANT != NO_SECOND_LOOK && (known > mine || state != 0) -> skip
                :: else ->
#if MUTANT == SEEN_AFTER_THE_LOOK
                    unchanged[me] = true;
#endif
                    sleep_unless_rung(me)
                fi;
                leave(me, DATA)
            fi
        od;
        assert(ended != CLOSE || mine == MESSAGES)
    }
#if ENDING == KILL
    unless { killed && me == 1 }
#endif
    ;
    asleep[me] = false
}

/* Whoever poisons at some moment, or marks the killed reader dead. */
proctype Supervisor() {
#if ENDING == POISON
    state = POISON;
#if MUTANT != SILENT_END
    ring(READERS, DATA);
    ring(READERS, SPACE);
#endif
#elif ENDING == KILL
    killed = true;
    dead[1] = true;
    parked[DATA] = parked[DATA] & (7 - bit(1));
#if MUTANT != SILENT_DEATH
    ring(READERS, DATA);
    ring(READERS, SPACE);
#endif
#endif
    skip
}

init {
    atomic {
#if MUTANT == TAIL_WITHOUT_FENCE
        run Memory(WRITER);
#elif MUTANT == HEAD_WITHOUT_FENCE
        run Memory(0);
        run Memory(1);
#endif
        run Writer(ENDING == HANDOVER);
#if ENDING == HANDOVER
        run Writer(false);
#endif
        run Reader(0);
        run Reader(1);
        run Supervisor()
    }
}
