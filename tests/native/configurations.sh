#!/bin/sh
# usage: configurations.sh quick|full        (the Makefile sets BUILD, FIXED and SEED)
# Runs the claims and the stress in each build and way. A line each, the sum at the end.
set -eu

page=$(getconf PAGESIZE)
results=$BUILD/results
: > "$results"
run=0

case $1 in
quick) divisor=30 ;;
full) divisor=1 ;;
*) exit 2 ;;
esac

stress() { # build, messages, options
    build=$1 messages=$(($2 / divisor))
    shift 2
    run=$((run + 1))
    $FIXED "$BUILD/$build/stress" --messages $messages --seed $((SEED + run)) "$@" > "$BUILD/result"
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

for build in plain asan tsan; do
    printf '%s ' $build
    $FIXED "$BUILD/$build/ring_test"
done

every_number_of_readers tsan threads 2200000 1400000
every_number_of_readers asan threads 4800000 2000000
every_number_of_readers asan processes 4800000 2000000

for ending in --poison-at --kill-at; do
    stress tsan 200000 --mode threads --readers 3 $ending 4000 --park --delays
    stress asan 200000 --mode processes --readers 3 $ending 4000 --park --delays
    stress asan 200000 --mode processes --readers 3 $ending 4000
done

awk '{ for (i = 1; i <= NF; i++) if ($i ~ /^messages=/) sum += substr($i, 10) }
     END { printf "OK stress: %d messages in %d runs\n", sum, NR }' "$results"
