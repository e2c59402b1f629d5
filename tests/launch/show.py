"""A rank that says what it was given and does what it is told: `show.py WHAT`. Without torch."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

_NAMES = (
    "RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "ROLE_NAME", "WORLD_SIZE", "LOCAL_WORLD_SIZE",
    "ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES",
    "TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_MAX_RESTARTS", "TORCHELASTIC_RUN_ID",
    "TORCHELASTIC_ERROR_FILE", "TORCHELASTIC_SIGNALS_TO_HANDLE", "OUTSIDE",
)  # fmt: skip


def main(what: str, *arguments: str) -> None:
    rank = os.environ["RANK"]
    if what == "environment":
        shown = {name: os.environ.get(name) for name in _NAMES} | {"arguments": arguments}
        print(json.dumps(shown), flush=True)
        print(f"an error line of {rank}", file=sys.stderr)
    elif what == "fail":
        raise RuntimeError(f"failing, as told, on {rank}")
    elif what == "checkpoint":
        # As a SLURM job that gets a signal some time before its end.
        marks = Path(os.environ["MARKS"])
        signal.signal(signal.SIGUSR1, lambda *_: ((marks / f"saved-{rank}").touch(), sys.exit(0)))
        (marks / f"ready-{rank}").touch()
        time.sleep(600)
    elif what == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        Path(os.environ["MARKS"], f"ready-{rank}").touch()
        time.sleep(600)


if __name__ == "__main__":
    main(*sys.argv[1:])
