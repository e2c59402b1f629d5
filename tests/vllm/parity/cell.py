"""python -m parity.cell BACKEND OUT ROW…: runs rows in this process, one engine after another.

Writes a record for each row to OUT/ROW.json. `files` and `processes` are those that an engine has left at
its end; whoever started this process checks which of them are still there after the process has ended.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import workload
from leftovers import files_of_runs, session_processes

from parity import rows
from parity.feature import (
    ENGINES,
    ENVIRONMENT,
    FEATURES,
    Feature,
    NotApplicable,
    Place,
    with_lifecycle,
)
from parity.record import Record

_LIMIT_S = 900
"""For one row: it may start three engines, on a machine that does other things, too."""
_TOO_LONG = ("TooLong", f"no end within {_LIMIT_S} s")

_CHANGING = re.compile(r"0x[0-9a-f]+|\d+(\.\d+)?|/\S+")


class Warned(logging.Handler):
    """vLLM's warnings in this process, without what changes from run to run."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(_CHANGING.sub("…", record.getMessage())[:200])

    def take(self) -> list[str]:
        lines, self.lines = self.lines, []
        return sorted(set(lines))


class TooLong(BaseException):
    """A row has had its time."""


def run(feature: Feature, *args: Any) -> Record:
    """What it returns, or raises."""

    def stop(number: int, frame: object) -> None:
        raise TooLong

    record = Record()
    signal.signal(signal.SIGALRM, stop)
    signal.alarm(_LIMIT_S)
    try:
        record.value = json.loads(json.dumps(feature.run(*args), default=repr))
    except NotApplicable as reason:
        record.not_applicable = str(reason)
    except Exception as error:
        record.error = (type(error).__name__, str(error)[:2000])
    except TooLong:
        record.error = _TOO_LONG
    finally:
        signal.alarm(0)
    return record


Save = Callable[[dict[str, Record]], None]


def run_on_one_engine(names: list[str], place: Place, save: Save) -> bool:
    """All on one engine. False if it may never answer."""
    (engine,) = {FEATURES[name].engine for name in names}
    assert engine is not None
    try:
        arguments = ENGINES[engine](place.models)
    except NotApplicable as reason:
        save(dict.fromkeys(names, Record(not_applicable=str(reason))))
        return True
    with _environment(arguments.pop(ENVIRONMENT, {})):
        return _run_with(
            arguments | {"distributed_executor_backend": place.backend}, names, place, save
        )


@contextmanager
def _environment(changed: dict[str, str | None]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ |= {name: value for name, value in changed.items() if value is not None}
    for name, value in changed.items():
        if value is None:
            os.environ.pop(name, None)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ |= before


def _run_with(arguments: dict[str, Any], names: list[str], place: Place, save: Save) -> bool:
    from vllm import LLM

    before, began = _there(), time.monotonic()
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    try:
        llm = LLM(**arguments)
    except Exception as error:
        save({name: Record(error=(type(error).__name__, str(error)[:2000])) for name in names})
        return True
    start_s = time.monotonic() - began
    records = {}
    for name in names:
        records[name] = run(FEATURES[name], llm, place)
        save({name: records[name]})
        if records[name].error == _TOO_LONG:
            return False
    began = time.monotonic()
    llm.llm_engine.engine_core.shutdown()
    stop_s = time.monotonic() - began
    files, processes = (sorted(now - then) for now, then in zip(_there(), before, strict=True))
    for name in with_lifecycle(names):
        record = records[name]
        record.start_s, record.stop_s, record.load = start_s, stop_s, load
        record.files, record.processes = files, processes
    save(records)
    return True


def _there() -> tuple[set[str], set[str]]:
    """Files and processes."""
    return files_of_runs(Path(tempfile.gettempdir())), set(session_processes(os.getsid(0)))


def main(backend: str, out: str, *names: str) -> None:
    workload.set_environment()
    warned = Warned()
    rows.load()
    folder = Path(out)
    place = Place(folder.parents[1] / "models", backend, folder)

    def save(records: dict[str, Record]) -> None:
        lines = warned.take()
        for name, record in records.items():
            record.warnings = record.warnings or lines
            record.unchecked = True
            record.write(folder / f"{name}.json")

    logging.getLogger("vllm").addHandler(warned)
    with warnings.catch_warnings(record=True):
        for engine, group in groupby(names, lambda name: FEATURES[name].engine):
            if engine is None:
                for name in group:
                    save({name: run(FEATURES[name], place)})
            elif not run_on_one_engine(list(group), place, save):
                return  # the rows that are missing get another process


if __name__ == "__main__":
    main(*sys.argv[1:])
