"""When a process fails: who is named, with what exit code, and how soon the rest ends."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(240)


@pytest.mark.parametrize(
    ("what", "exit_code", "said"),
    [
        ("raises", 1, r"rank 1 raised, and the engine \(pid \d+\): exit code 1"),
        ("fails-at-start", 1, r"rank 1 \(pid \d+\): (exit code 1|raised, and was stopped)"),
        pytest.param(
            "engine-dies", 5, r"the engine \(pid \d+\): exit code 5", marks=pytest.mark.slow
        ),
    ],
)
def test_the_first_failure_is_named_and_gives_the_exit_code(
    launch: Any, what: str, exit_code: int, said: str
) -> None:
    launched = launch("-n", "2", "app.py", what)
    code, _, err = launched.result()
    assert code == exit_code
    summary = err[err.index("mpspmd-launch: ") :]
    assert re.match(rf"mpspmd-launch: app.py failed: {said}\n", summary), err
    if what == "raises":
        assert "ValueError in end (step 1): this rank has had enough" in summary
        assert 'app.py", line' in summary
    if what == "fails-at-start":
        assert "Traceback (most recent call last):" in summary
        assert "RuntimeError: no weights for this rank" in summary
    assert launched.processes() == []
    assert launched.leftovers() == []


def _hints(err: str) -> int:
    return err.count("has not called mpspmd.run()")


def test_a_rank_that_fails_before_the_engine_calls_run_is_the_only_cause_named(
    launch: Any, tmp_path: Path
) -> None:
    (tmp_path / "slow.py").write_text(
        "import json, os, time\n"
        "if json.loads(os.environ['MPSPMD_LAUNCH'])['rank'] == 0:\n"
        "    raise RuntimeError('no such library')\n"
        "time.sleep(60)\n"
    )
    code, _, err = launch("-n", "1", str(tmp_path / "slow.py")).result()
    assert code == 1
    assert "slow.py failed: rank 0 (pid " in err
    assert "RuntimeError: no such library" in err
    assert _hints(err) == 0, err


def test_only_the_last_start_decides_whether_the_engine_has_called_run(
    launch: Any, tmp_path: Path
) -> None:
    (tmp_path / "second.py").write_text(
        "import os, mpspmd\n"
        "def main(engine):\n"
        "    raise ValueError('after the start')\n"
        "if __name__ == '__main__':\n"
        "    if os.environ['TORCHELASTIC_RESTART_COUNT'] == '0':\n"
        "        raise SystemExit(9)\n"
        "    mpspmd.run(mpspmd.Worker, main)\n"
    )
    options = ("-n", "1", "--max-restarts", "1", "--monitor-interval", "0.01")
    code, _, err = launch(*options, str(tmp_path / "second.py")).result()
    assert code == 1
    assert "ValueError: after the start" in err
    assert _hints(err) == 0, err


def test_a_program_that_cannot_be_run_is_not_said_to_lack_an_engine(launch: Any) -> None:
    code, _, err = launch("-n", "1", "--no-python", "no-such-program").result()
    assert code == 127
    assert "can't run no-such-program: No such file or directory" in err
    assert _hints(err) == 0, err


def test_the_group_is_restarted_as_often_as_asked_and_then_ends(
    launch: Any, tmp_path: Path
) -> None:
    # A launcher that looks so often may notice a death before the engine does, and ends it.
    options = ("-n", "2", "--max-restarts", "2", "--monitor-interval", "0.01")
    launched = launch(*options, "app.py", "exits")
    code, _, err = launched.result()
    assert code == 3
    assert err.count("mpspmd-launch: restart") == 2
    assert "mpspmd-launch: restart 2 of 2\n" in err
    starts = launched.starts()
    assert len(starts) == 3
    assert len({pid for start in starts for pid in start}) == 9
    assert err.count("mpspmd-launch: app.py failed: rank 1 ") == 1
    last_pid = starts[2][2]
    assert f"failed: rank 1 (pid {last_pid}): exit code 3\n" in err
    assert f"RankDied: rank 1 (pid {last_pid}) died in end (step 1): exit code 3" in err


@pytest.mark.slow
def test_the_launcher_ends_soon_after_a_rank_was_killed(launch: Any, eventually: Any) -> None:
    launched = launch("-n", "2", "app.py", "works")
    eventually(launched.starts, "the ranks are there", 100)
    time.sleep(0.2)
    engine, _, rank_1 = launched.starts()[0]
    killed = time.monotonic()
    os.kill(rank_1, signal.SIGKILL)
    code, _, err = launched.result()
    assert time.monotonic() - killed < 10
    assert code == 137
    assert f"rank 1 (pid {rank_1}): killed by SIGKILL" in err
    assert engine not in [process.pid for process in launched.processes()]


def test_a_plain_programs_traceback_is_in_the_summary(launch: Any, tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text(
        "import os, time\n"
        "if os.environ['RANK'] == '1':\n"
        "    raise LookupError('not on this rank')\n"
        "time.sleep(60)\n"
    )
    code, _, err = launch("-n", "2", "--ranks-only", str(tmp_path / "plain.py")).result()
    assert code == 1
    _, _, summary = err.partition("plain.py failed: rank 1 (pid ")
    assert "line 3, in <module>\n" in summary
    assert "LookupError: not on this rank" in summary


def test_a_folder_for_log_files_that_can_not_be_made_is_one_line(launch: Any) -> None:
    launched = launch("-n", "1", "--log-dir", "/dev/full", "app.py", "works")
    code, out, err = launched.result()
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "File exists: '/dev/full'" in err


def test_a_child_that_outlives_its_rank_and_writes_for_ever_keeps_no_launcher(launch: Any) -> None:
    writer = "import subprocess as s; s.Popen(['timeout', '60', 'yes'], start_new_session=True)"
    launched = launch("-n", "1", "--ranks-only", "--no-python", sys.executable, "-c", writer)
    with open(os.devnull, "wb") as nowhere:
        threading.Thread(
            target=shutil.copyfileobj, args=(launched.process.stdout.buffer, nowhere)
        ).start()
        assert launched.process.wait(40) == 0
