"""Cells: runs rows in processes of their own, and looks at what they leave behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import vllm_versions
from leftovers import Leftovers, wait_until_gone

from parity.feature import FEATURES
from parity.record import Record

RESULTS = vllm_versions.ROOT / "build" / "parity"
TIMEOUT_S = 1800


def path_of(version: str, backend: str, name: str) -> Path:
    return RESULTS / version / backend / f"{name}.json"


def run_cells(version: str, backend: str, names: list[str], again: bool = False) -> list[Record]:
    """In one process; `again`: beside the first run's results."""
    column = f"{backend}-again" if again else backend
    paths = [path_of(version, column, name) for name in names]
    absent = {name: reason for name in names if (reason := FEATURES[name].missing_in(version))}
    for name in names:
        path_of(version, column, name).unlink(missing_ok=True)
    names = [name for name in names if name not in absent]
    for name, reason in absent.items():
        Record(not_applicable=reason).write(path_of(version, column, name))
    # A row that doesn't end takes its process along: those after it get another one.
    while names:
        _run_process(version, backend, column, names)
        names = [name for name in names if not path_of(version, column, name).exists()]
    return [Record.read(path) for path in paths]


def _run_process(version: str, backend: str, column: str, names: list[str]) -> None:
    before, load = Leftovers(), os.getloadavg()[0] / (os.cpu_count() or 1)
    timeout_s = TIMEOUT_S + 60 * len(names)
    # What torch compiles for vLLM's sampler is the same in all cells, and takes half a minute.
    places = {"TMPDIR": str(before.temp), "TORCHINDUCTOR_CACHE_DIR": str(RESULTS / "inductor")}
    environment = vllm_versions.environment(version) | places
    out = path_of(version, column, "x").parent
    out.mkdir(parents=True, exist_ok=True)
    with (out / f"{names[0]}.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "parity.cell", backend, out, *names],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        try:
            ended = f"ended with {process.wait(timeout_s)}"
        except subprocess.TimeoutExpired:
            ended = f"didn't end within {timeout_s} s"
            process.kill()
        finally:
            left = wait_until_gone(process.pid, 10)
            _kill_session(process.pid)
    files = sorted(before.new_files(within_s=3))
    if not path_of(version, column, names[0]).exists():
        died = ("Killed", f"the process {ended}: see {log.name}")
        Record(error=died).write(path_of(version, column, names[0]))
    note_what_is_left(version, column, names, files, left, load)
    for file in files:
        if file.startswith("/dev/shm/"):
            Path(file).unlink(missing_ok=True)


def note_what_is_left(
    version: str, column: str, names: list[str], files: list[str], processes: list[str], load: float
) -> None:
    """An engine is blamed for what it left and is still there, the first row for all other things."""
    unclaimed_files, unclaimed_processes = set(files), set(processes)
    paths = [path for name in names if (path := path_of(version, column, name)).exists()]
    records = {path: Record.read(path) for path in paths}
    for record in records.values():
        record.files = [file for file in record.files if file in files]
        record.processes = [process for process in record.processes if process in processes]
        unclaimed_files -= set(record.files)
        unclaimed_processes -= set(record.processes)
    first = records[paths[0]]
    first.files += sorted(unclaimed_files)
    first.processes += sorted(unclaimed_processes)
    for path, record in records.items():
        record.load = load if record.load is None else record.load
        record.unchecked = False
        record.write(path)


def _kill_session(session: int) -> None:
    """What a cell has left: processes of the session that it was started in."""
    for line in wait_until_gone(session, 0):
        os.kill(int(line.split()[0]), signal.SIGKILL)
