#!/bin/sh
# usage: configurations.sh sanitized|emulated        (the Makefile sets BUILD, RUNNER, SEED and DIVISOR)
# Runs the claims and the stress in each build and way, with a DIVISOR-th of the messages. A line each,
# the sum at the end.
set -eu

page=$(getconf PAGESIZE)
results=$BUILD/results
: > "$results"
run=0

claims() { # build, options
    build=$1
    shift
    printf '%s ' "$build"
    $RUNNER "$BUILD/$build/ring_test" "$@"
}

stress() { # build, messages, options
    build=$1 messages=$(($2 / DIVISOR))
    shift 2
    run=$((run + 1))
    $RUNNER "$BUILD/$build/stress" --messages $messages --seed $((SEED + run)) "$@" > "$BUILD/result"
    sed "s/^OK /$build /" "$BUILD/result" | tee -a "$results"
}

# Fewer messages where each costs more: ThreadSanitizer, many readers, parking.
every_number_of_readers() { # build, mode, messages of the awake runs, of those that park
    for readers in 1 2 4 8; do
        for capacity in $page $((4 * page)); do
            stress "$1" $(($3 / 2 / (readers + 3))) --mode "$2" --readers $readers \
                --capacity "$capacity"
            stress "$1" $(($4 / 2 / (readers + 3))) --mode "$2" --readers $readers \
                --capacity "$capacity" --park --delays
        done
    done
}

every_ending() { # build of the threads, build of the processes
    for ending in --poison-at --kill-at; do
        stress "$1" 200000 --mode threads --readers 3 $ending 4000 --park --delays
        stress "$2" 200000 --mode processes --readers 3 $ending 4000 --park --delays
        stress "$2" 200000 --mode processes --readers 3 $ending 4000
    done
}

case $1 in
sanitized)
    for build in plain asan tsan; do
        claims $build
    done
    every_number_of_readers tsan threads 2200000 1400000
    every_number_of_readers asan threads 4800000 2000000
    every_number_of_readers asan processes 4800000 2000000
    every_ending tsan asan
    ;;
emulated)
    claims arm64 --emulated
    every_number_of_readers arm64 threads 4800000 2000000
    every_number_of_readers arm64 processes 4800000 2000000
    every_ending arm64 arm64
    ;;
*) exit 2 ;;
esac

awk '{ for (i = 1; i <= NF; i++) if ($i ~ /^messages=/) sum += substr($i, 10) }
     END { printf "OK stress: %d messages in %d runs\n", sum, NR }' "$results"
