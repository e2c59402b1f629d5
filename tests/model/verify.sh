#!/bin/sh
# Checks the model of the ring with spin, and that every mutant of it is refuted.
set -eu
cd "$(dirname "$0")"
command -v spin > /dev/null || { echo "make verify needs spin: apt-get install spin"; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
model=$PWD/ring.pml

states() { # options: leaves spin's report in $work/report
    (cd "$work" && spin -a "$@" "$model" && ${CC:-cc} -O2 -DSAFETY -DCOLLAPSE -w -o pan pan.c &&
        ./pan -m100000 > report) || { cat "$work/report"; exit 2; }
    if grep -q 'max search depth too small' "$work/report"; then
        echo "the search was cut: $*"
        exit 2
    fi
    grep -q 'errors: 0' "$work/report"
}

holds() {
    states "$@" || { echo "FAILED    $*"; cat "$work/report"; exit 1; }
    echo "holds     $* $(awk '/states, stored/ { print $1 " states" }' "$work/report")"
}

refuted() {
    if states "$@"; then
        echo "SURVIVED  $*"
        exit 1
    fi
    echo "refuted   $*"
}

holds -DMESSAGES=3
holds -DMESSAGES=2 -DKILL
holds -DMESSAGES=2 -DPOISON
holds -DMESSAGES=3 -DCAPACITY=2
for mutant in NO_INCREMENT WAKE_BEFORE_INCREMENT WAKE_ONE NOTIFY_WITHOUT_LOOKING_AT_ONE BIT_AFTER_LOOK \
    NO_SECOND_LOOK SEEN_AFTER_LOOK TAIL_RELEASED TAIL_RELAXED HEAD_RELEASED CROSSING_MUST_GO_BEYOND \
    SCAN_IGNORES_A_READER CLOSED_WITHOUT_A_LAST_LOOK CLOSE_WITHOUT_RINGING; do
    refuted -D$mutant
done
refuted -DMESSAGES=2 -DKILL -DSCAN_WAITS_FOR_THE_DEAD
refuted -DMESSAGES=2 -DKILL -DDEATH_WITHOUT_RINGING
refuted -DMESSAGES=2 -DPOISON -DPOISON_WITHOUT_RINGING
echo "OK verify"
