"""The janitor: when the last process of a run is killed, its files go."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

SCRIPT = """
import os, signal, sys
from multiprocessing import get_context
from mpspmd.runtime.janitor import Janitor

def hold(janitor):
    os.write(1, b"held\\n")
    signal.pause()

if __name__ == "__main__":
    janitor = Janitor()
    for name in sys.argv[1:]:
        janitor.remove_at_end(name)
    get_context("spawn").Process(target=hold, args=(janitor,)).start()
    signal.pause()
"""


def wait_until(condition: object, within_s: float = 10) -> bool:
    end = time.monotonic() + within_s
    while not condition() and time.monotonic() < end:  # type: ignore[operator]
        time.sleep(0.02)
    return bool(condition())  # type: ignore[operator]


def test_files_go_when_the_last_process_is_killed_and_not_before(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    folder, other = tmp_path / "with a space", tmp_path / "kept"
    for path in (folder, other):
        path.mkdir()
        (path / "file").touch()
    patterned = [tmp_path / "run-1", tmp_path / "run-2"]
    for path in patterned:
        path.touch()
    process = subprocess.Popen(
        [sys.executable, script, str(folder), str(tmp_path / "run-*"), str(tmp_path / "absent")],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    process.kill()
    process.wait()
    time.sleep(0.3)
    assert folder.exists(), "another process of the run still lives"
    os.killpg(process.pid, signal.SIGKILL)
    assert wait_until(lambda: not folder.exists())
    assert wait_until(lambda: not any(path.exists() for path in patterned))
    assert (other / "file").exists()
