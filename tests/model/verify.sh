#!/bin/sh
# usage: verify.sh        (SPIN and CC may be set)
# Verifies the model of the ring exhaustively for each way in which a run ends, and demands that spin
# refutes each mutant. A line each.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
spin=${SPIN:-spin}
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
cd "$build"
failed=0

# Exit status 0: verified; 1: refuted; 2: the search wasn't complete.
search() { # ending, mutant
    "$spin" -DENDING="$1" -DMUTANT="$2" -a "$here/ring.pml" > log 2>&1 || return 2
    ${CC:-cc} -O1 -w -DSAFETY -DCOLLAPSE -DMEMLIM=3000 -DVECTORSZ=2048 -o pan pan.c
    ./pan -m200000 > log 2>&1
    grep -q 'errors: 0' log || return 1
    ! grep -qE 'Search not completed|max search depth too small' log || return 2
}

states() {
    sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' log
}

for ending in DRAIN HANDOVER CLOSE POISON KILL; do
    if search $ending NONE; then
        printf 'verified  %-8s %s states\n' $ending "$(states)"
    else
        printf 'FAILED    %s\n' $ending
        cat log
        failed=1
    fi
done

refute() { # mutant, ending
    status=0
    search "$2" "$1" || status=$?
    if [ $status = 1 ]; then
        printf 'refuted   %-28s %s\n' "$1" "$(grep -oE 'invalid end state|assertion violated' log | head -1)"
    else
        printf 'SURVIVED  %s\n' "$1"
        failed=1
    fi
}

for mutant in TAIL_WITHOUT_FENCE HEAD_WITHOUT_FENCE SPACE_BIT_NEVER_SET NO_INCREMENT \
    INCREMENT_AFTER_WAKE WAKES_ONE SEEN_AFTER_THE_LOOK NO_SECOND_LOOK NO_NOTIFY NOTIFY_BEFORE_TAIL \
    SCAN_SKIPS_A_READER CROSSING_MUST_GO_BEYOND WANT_AFTER_THE_LOOK; do
    refute $mutant DRAIN
done
for mutant in CLAIM_WITHOUT_COMPARING RELEASE_FORGETS_TORN SUCCESSOR_FORGETS_TORN; do
    refute $mutant HANDOVER
done
refute CLOSED_WITHOUT_LAST_LOOK CLOSE
refute SILENT_END CLOSE
refute SILENT_END POISON
refute SILENT_DEATH KILL
refute SCAN_WAITS_FOR_THE_DEAD KILL
exit $failed
