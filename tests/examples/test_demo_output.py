"""What the demo says while it waits."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "examples"))

from _progress import Progress
from _server import first_cause, newest_information

LOG = """\
(APIServer pid=7) INFO 11-29 05:06:37 [api_utils.py:347]   █▄█▀ █     █     █     █  model   /tmp/model
(Worker_TP0 pid=9) INFO 11-29 05:07:08 [default_loader.py:501] Loading weights took 0.23 seconds
(APIServer pid=7) INFO 11-29 05:07:09 [api_utils.py:347]
(Worker pid=8) WARNING 11-29 05:07:07 [cpu_worker.py:114] libtcmalloc is not found in LD_PRELOAD.
Triton is installed, but doesn't include CPU backend. Disabling Triton.
/lib/dispatcher.py:138: FutureWarning: `torch.distributed.reduce_op` is deprecated
""".splitlines()


def test_a_servers_start_shows_information_and_no_warnings() -> None:
    assert newest_information(LOG) == "Loading weights took 0.23 seconds"
    assert newest_information(LOG[-2:]) == "vLLM is being imported"


def test_a_line_of_progress_is_printed_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("_progress.REPEAT_SECONDS", 0)
    monkeypatch.setattr("_progress.UNCHANGED_SECONDS", 0)
    with Progress("starting") as progress:
        for text in ("loading", "loading", "loading", "ready"):
            progress.show(text)
    lines = capsys.readouterr().err.splitlines()
    assert [re.sub(r" \(\d+ s\)$", "", line) for line in lines[1:5]] == [
        "starting … loading",
        "starting …",
        "starting …",
        "starting … ready",
    ]


def test_the_cause_of_a_failed_start_names_the_ranks_and_their_error() -> None:
    log = [
        "Traceback (most recent call last):",
        "mpspmd.errors.StartupError: 2 rank(s) failed while starting",
        "ranks 0, 1: AttributeError: no attribute 'init_cpu_memory_env'",
        "Traceback (most recent call last):",
    ]
    cause = "2 rank(s) failed while starting ranks 0, 1: AttributeError: no attribute"
    assert cause in first_cause(log)
