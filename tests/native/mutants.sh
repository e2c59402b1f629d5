#!/bin/sh
# Breaks a copy of the ring in one place after the other: the claims or the stress must notice each.
# The Makefile sets BUILD, CSRC, CC, MAKE and RUNNER. Prints which of the two noticed. ONLY is a pattern
# of names, for a run of some.
#
# Not here, because it breaks nothing: bell_prepare() loading `rung` before it sets the bit. An older
# `seen` only keeps a sleeper awake once too often; what loses wake-ups is a `seen` from after the
# second look (seen_after_the_look).
set -eu

copy=$BUILD/csrc
survived=0
count=0

build() { # programs
    for program in "$@"; do
        $MAKE -s CSRC="$copy" BUILD="$BUILD/bin" CC="$CC" WARNINGS=-w "$BUILD/bin/$program"
    done
}

claims_notice() { # build, tries
    try=0
    while [ $try -lt "$2" ]; do
        $RUNNER "$BUILD/bin/$1/ring_test" --stop > "$BUILD/log" 2>&1 || return 0
        try=$((try + 1))
    done
    return 1
}

stress_notices() { # build, options
    program=$BUILD/bin/$1/stress
    shift
    ! $RUNNER "$program" --capacity "$(getconf PAGESIZE)" --limit 3 --messages 60000 "$@" \
        > "$BUILD/log" 2>&1
}

some_stress_notices() {
    stress_notices plain --mode threads --readers 4 --park --delays ||
        stress_notices plain --mode processes --readers 3 --park --delays --kill-at 5000
}

# Sets `noticed` to the names of those that did, or to nothing.
try_copy() { # tries of the claims, "tsan" or "tsan-claims" to run the stress or the claims in that build too
    noticed=
    build plain/ring_test plain/stress
    claims_notice plain "$1" && noticed="$noticed claims"
    some_stress_notices && noticed="$noticed stress"
    case $2 in
    tsan)
        build tsan/stress
        stress_notices tsan --mode threads --readers 2 && noticed="$noticed tsan"
        ;;
    tsan-claims)
        build tsan/ring_test
        claims_notice tsan 1 && noticed="$noticed tsan"
        ;;
    esac
    return 0
}

mutate() { # name, file, sed script, [tries], [tsan or tsan-claims]
    echo "$1" | grep -qE "$ONLY" || return 0
    rm -rf "$copy"
    cp -R "$CSRC" "$copy"
    sed -i -E "$3" "$copy/$2"
    if cmp -s "$CSRC/$2" "$copy/$2"; then
        echo "error     $1: the script changes nothing in $2"
        survived=$((survived + 1))
        return 0
    fi
    count=$((count + 1))
    try_copy "${4:-1}" "${5:-}"
    verdict=noticed
    if [ -z "$noticed" ]; then
        verdict=SURVIVED
        survived=$((survived + 1))
    fi
    printf '%-9s %-40s by%s\n' "$verdict" "$1" "${noticed:- nobody}"
}

mkdir -p "$BUILD"
rm -rf "$copy"
cp -R "$CSRC" "$copy"
for build in tsan tsan-claims; do
    try_copy 1 $build
    if [ -n "$noticed" ]; then
        echo "the unchanged source fails:$noticed"
        cat "$BUILD/log"
        exit 1
    fi
done
echo 'passed    the unchanged source'

# The doorbell.
mutate ring_without_the_increment ring/bell.c '/atomic_fetch_add.*rung/d'
mutate increment_after_the_wake ring/bell.c \
    '/atomic_fetch_add.*rung/d; s/^( *)futex\(&bell->rung, FUTEX_WAKE.*/&\natomic_fetch_add(\&bell->rung, 1);/'
mutate wake_one_of_the_sleepers ring/bell.c 's/INT_MAX, NULL/1, NULL/'
mutate futex_private_to_the_process ring/bell.c 's/word, operation, value/word, operation | 128, value/'
mutate notify_never_rings ring/bell.c '/^void bell_notify/,/^}/s/bell_ring\(bell\)/(void)0/'
mutate sleepers_bit_never_set ring/bell.c '/atomic_fetch_or_explicit/d'
mutate seen_after_the_look ring/bell.c \
    's/^( *)HOOK\(HOOK_BEFORE_SLEEP\);/seen = atomic_load(\&bell->rung);\n&/'

# Parking.
mutate sleep_without_a_second_look wait/wait.c \
    's/bool ready = waiter->ready.*/bool ready = false;/; s/^( *)if \(ready\)$/\1if (waiter->ready(waiter->condition))/'
mutate bit_set_after_the_look wait/wait.c \
    '/bool ready = waiter->ready/d; s/^( *)uint32_t seen = bell_prepare/bool ready = waiter->ready(waiter->condition);\n&/'
mutate signal_swallowed ring/bell.c 's/BELL_TIMEOUT : BELL_SIGNAL/BELL_TIMEOUT : BELL_RUNG/'
mutate timeout_taken_for_a_signal ring/bell.c 's/BELL_TIMEOUT : BELL_SIGNAL/BELL_SIGNAL : BELL_SIGNAL/'
mutate bit_left_set wait/wait.c '/bell_leave\(waiter/d'

# Publish and release.
mutate publish_without_notify ring/writer.c '/bell_notify\(ring->data_bell/d'
mutate publish_notifies_before_the_tail ring/writer.c \
    '/bell_notify\(ring->data_bell/d; s/^( *)atomic_store_explicit\(&ring->shared->tail/bell_notify(ring->data_bell, UINT64_MAX);\n&/'
mutate publish_rings_always ring/writer.c 's/bell_notify\(ring->data_bell, UINT64_MAX\)/bell_ring(ring->data_bell)/'
mutate release_without_looking_at_parked ring/reader.c '/if \(!\(parked & SPACE_BIT\)\)/,/return;/d'
mutate release_looks_before_it_stores_the_head ring/reader.c \
    '/^ *uint64_t parked = /d; s/^( *)uint64_t old_head = .*/&\nuint64_t parked = atomic_load(\&ring->space_bell->parked);\nHOOK(HOOK_BEFORE_NOTIFY);/'
mutate crossing_never_rings ring/reader.c 's/old_head < want && want <= reader->head/false/'
mutate crossing_must_go_beyond ring/reader.c 's/want <= reader->head/want < reader->head/'
mutate wanted_position_out_of_reach ring/writer.c 's/(writer->tail \+ free_bytes) - writer->ring->capacity/\1/'
mutate least_that_is_wanted_is_a_quarter ring/writer.c \
    '/^void ring_want_least/,/^}/s/want_free.*/ring_want(writer, length);/'
mutate wanted_position_of_one_record ring/writer.c 's/if \(free_bytes < quarter\)/if (false)/'

# Space.
mutate space_for_one_header_too_many ring/writer.c \
    's/(return )?(writer->tail \+ need <= writer->limit)/\1\2 + 16/'
mutate space_for_one_byte_less ring/writer.c 's/return writer->tail \+ need <= writer->limit/return writer->tail + need < writer->limit/'
mutate scan_ignores_the_slowest ring/writer.c 's/if \(behind > farthest\)/if (behind > farthest \&\& slot > 0)/'
mutate scan_waits_for_the_dead ring/writer.c '/^static uint64_t scan_heads/,/^}/s/^ *continue;/;/'
mutate limit_is_never_kept ring/writer.c '/^static bool has_space/,/return true;/s/<= writer->limit/< 0/'

mutate head_unchecked ring/writer.c 's/writer->corrupt = behind > capacity/writer->corrupt = false/'
mutate number_of_ranks_read_again run/status.c \
    's/status_segment_bytes\(status->n_ranks\)/status_segment_bytes(status->shared->about.n_ranks)/'

# The recorder.
mutate record_changed_in_the_open run/recorder.c '/^static uint32_t begin/,/^}/s/sequence \+ 1/sequence/'
mutate record_with_words_of_the_step_before run/recorder.c '/^static struct step_record .open_record/,/^}/s/set\(record, i, 0\)/;/'
mutate late_reply_in_a_later_step run/recorder.c 's/if \(there > step\)/if (false)/'

# Who writes.
mutate second_writer_let_in ring/writer.c \
    's/CLAIM_OF\(\*found\) != CLAIM_FREE && CLAIM_OF\(\*found\) != CLAIM_TORN/false/'
mutate claim_taken_without_comparing ring/writer.c \
    's/\} while \(!atomic_compare_exchange_weak_explicit\(claim/atomic_store(claim, writer->claim);\n} while (false \&\& !atomic_compare_exchange_weak_explicit(claim/'
mutate claim_never_given_back ring/writer.c \
    '/^void ring_writer_release/,/^}/s/left, *$/own,/; /^void ring_writer_release/,/^}/s/&own, left,/\&own, own,/'
mutate claim_of_another_given_back ring/writer.c \
    '/^void ring_writer_release/,/^}/s/^( *)writer->ring = NULL/\1atomic_store(\&writer->ring->shared->claim, left);\n&/'
mutate claim_given_back_as_if_nothing_were_torn ring/writer.c 's/writer->torn \? CLAIM_TORN : CLAIM_FREE/CLAIM_FREE/'
mutate successor_does_not_ask_what_is_torn ring/writer.c 's/writer->torn = CLAIM_OF\(found\) == CLAIM_TORN/writer->torn = false/'

# Ends.
mutate close_without_ringing ring/ring.c '/^static void end_ring/,/^}/{/bell_ring/d}'
mutate close_rings_readers_only ring/ring.c '/^static void end_ring/,/^}/{/bell_ring\(ring->space_bell/d}'
mutate close_rings_the_writer_only ring/ring.c '/^static void end_ring/,/^}/{/bell_ring\(ring->data_bell/d}'
mutate last_poison_wins ring/ring.c 's/STATE_OF\(word\) < STATE_OF\(ended\)/STATE_OF(word) <= STATE_OF(ended)/'
mutate closed_without_a_last_look ring/reader.c \
    '/^enum ring_result ring_peek/,/^}/{/The last record may/,/return/s/if \(!has_record\(reader\)\)/if (true)/}'
mutate death_without_ringing ring/ring.c '/^void ring_mark_dead/,/^}/{/bell_ring/d}'
mutate death_leaves_the_parked_bit ring/ring.c '/^void ring_mark_dead/,/^}/{/bell_leave/d}'
mutate attach_takes_any_slot ring/reader.c \
    '/^bool ring_attach/,/^}/s/uint32_t expected = READER_FREE/uint32_t expected = atomic_load(\&ring->shared->readers[slot % 64].status)/'

# Bounds and fragments.
mutate length_unchecked ring/reader.c 's/ring_record_bytes\(record->header.length\) > visible/false/'
mutate tail_unchecked ring/reader.c 's/visible > reader->ring->capacity \|\| //'
mutate version_unchecked ring/segment.c 's/ \&\& start.version == LAYOUT_VERSION//'
mutate truncation_unchecked ring/segment.c 's/\(uint64_t\)segment.st_size < bytes/0/'
mutate mapping_survives_a_fork ring/ring_map.c 's/MADV_DONTFORK/MADV_NORMAL/'
mutate fragment_of_any_message ring/message.c 's/ && header->tag == message->tag//'
mutate total_unchecked ring/message.c 's/message->total <= PTRDIFF_MAX/true/'
mutate torn_messages_not_told ring/message.c 's/writer->torn = true/writer->torn = false/'
mutate fragment_longer_than_the_rest ring/message.c 's/bytes > left \|\| //; s/last != \(bytes == left\)/false/'

# Waiting.
mutate old_times_count_like_new_ones wait/predict.c 's/PREDICT_SAMPLES - age\}/1}/'
mutate any_window_will_do wait/predict.c 's/best > 0 && 4 \* best >= total/best > 0/'
mutate past_windows_are_polled_in wait/predict.c 's/if \(gap_ns <= elapsed_ns\)/if (false)/'
mutate all_may_poll wait/strategy.c 's/now < allowed_to_poll\(spinners\)/true/'
mutate pollers_stay_counted wait/strategy.c 's/if \(spinners\)$/if (false)/'
mutate misses_change_nothing wait/strategy.c 's/return found && .*/return found;/'
mutate times_of_earlier_messages_are_learnt wait/strategy.c 's/sent_ns < waiting->start_ns \? monotonic_ns\(\) : sent_ns/sent_ns/'
mutate what_is_there_at_once_has_come_late wait/strategy.c 's/if \(waiting->at_once\)/if (false)/'
mutate a_part_at_once_is_learnt_as_short wait/strategy.c '/^    waiting->at_once = false;/d'
mutate silence_is_polled_through wait/strategy.c 's/^( *)waiting->polled_ns \+= .*/\1;/'
mutate engine_without_a_core_sleeps wait/strategy.c 's/if \(usual_ns < STEP_NS\)/if (true)/'
mutate cores_are_counted_once wait/strategy.c '/^    strategy->spin_ns = spin_ns_of\(strategy\);$/{x;s/^/x/;/^xx/{x;d};x}'
mutate engine_is_awake_beside_free_cores wait/strategy.c 's/is_crowded\(strategy\) \? awake_now/true ? awake_now/'
mutate engine_without_a_core_never_sleeps wait/strategy.c 's/if \(now_ns >= silence_ns\)/if (false)/'
mutate polls_are_deaf_to_signals wait/strategy.c 's/polls \? POLL_NS : DOZE_NS/polls ? DOZE_NS * 99ull : DOZE_NS/'
mutate sleeps_are_deaf_to_signals wait/strategy.c 's/polls \? POLL_NS : DOZE_NS/polls ? POLL_NS : DOZE_NS * 99ull/'
mutate engine_is_awake_for_any_time wait/strategy.c 's/earlier\(2 \* usual_ns, AWAKE_NS\)/2 * usual_ns/'
mutate one_long_time_is_usual wait/predict.c 's/return predictor->learnt < PREDICT_ENOUGH \? 0 : second/return longest/'
# Liveness.
mutate liveness_without_a_robust_list run/liveness.c 's/syscall\(SYS_set_robust_list, .*\) != 0/false/'
mutate liveness_not_in_the_list run/liveness.c '/head.list.next = &liveness->node;/d'
mutate liveness_watched_without_the_waiters_bit run/liveness.c 's/wait_on\(word, seen \| FUTEX_WAITERS/wait_on(word, seen/; s/, seen \| FUTEX_WAITERS\)/, seen)/'
mutate liveness_begins_and_forgets_its_watcher run/liveness.c 's/thread_id \| \(word & FUTEX_WAITERS\)/thread_id/'
mutate liveness_futex_private_to_the_process run/liveness.c 's/word, FUTEX_WAIT, seen/word, FUTEX_WAIT | 128, seen/'
mutate liveness_of_the_dead_taken_over run/liveness.c 's/if \(word & ~\(uint32_t\)FUTEX_WAITERS\)/if (false)/'
mutate liveness_released_as_if_it_were_over run/liveness.c 's/atomic_fetch_and\(&holder->words\[i\]->word, FUTEX_WAITERS\)/atomic_store(\&holder->words[i]->word, FUTEX_OWNER_DIED)/'
mutate liveness_watched_by_a_thread_that_does_not_stop run/liveness.c 's/while \(!atomic_load\(&watcher->stop\)\)/for (;;)/'

# Memory order. On x86 a release store lets the look at `parked` pass it; ThreadSanitizer sees the rest.
mutate tail_stored_with_release ring/writer.c '/shared->tail, writer->tail, memory/s/seq_cst/release/' 8
mutate head_stored_with_release ring/reader.c \
    '/^ *atomic_store_explicit\(&ring->shared->readers\[reader->slot\].head/,/;/s/seq_cst/release/' 8
mutate tail_stored_relaxed ring/writer.c '/shared->tail, writer->tail, memory/s/seq_cst/relaxed/' 1 tsan
mutate tail_loaded_relaxed ring/reader.c '/reader->tail = atomic_load/s/seq_cst/relaxed/' 1 tsan
mutate head_stored_relaxed ring/reader.c \
    '/^ *atomic_store_explicit\(&ring->shared->readers\[reader->slot\].head/,/;/s/seq_cst/relaxed/' 1 tsan
mutate head_scanned_relaxed ring/writer.c \
    '/^static uint64_t scan_heads/,/^}/{/\]\.head, memory/s/seq_cst/relaxed/}' 1 tsan
mutate claim_taken_relaxed ring/writer.c \
    '/^static bool take_claim/,/^}/s/memory_order_seq_cst/memory_order_relaxed/' 1 tsan-claims
mutate claim_given_back_relaxed ring/writer.c \
    '/^void ring_writer_release/,/^}/s/memory_order_seq_cst/memory_order_relaxed/' 1 tsan-claims

if [ $survived -gt 0 ]; then
    echo "FAILED mutants: $survived of $count survived, or could not be made"
    exit 1
fi
echo "OK mutants: all $count noticed"
