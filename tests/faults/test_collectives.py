"""A rank that skips a collective: the report names it, the collective and the line of Python."""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mpspmd
from mpspmd.engine import rank_stacks
from mpspmd.errors import DumpError, StepTimeout
from mpspmd.observe.dump import read_dump
from mpspmd.processes import janitor

sys.path.insert(0, str(Path(__file__).parents[1] / "cli"))

import watched_workers

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(
        not hasattr(torch._C._distributed_c10d, "_dump_fr_trace_json"),
        reason="this PyTorch records no collectives of gloo",
    ),
]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[mpspmd.Engine]:
    config = mpspmd.RuntimeConfig(shutdown_timeout_s=1, dump_dir=str(tmp_path))
    worker = watched_workers.Stepper
    with mpspmd.Engine(worker, world_size=2, args=(True,), config=config) as engine:
        yield engine


def _is_complete(path: str) -> bool:
    with contextlib.suppress(DumpError):
        return bool(read_dump(path))
    return False


def test_the_first_three_lines_name_the_rank_the_collective_and_the_line(
    engine: mpspmd.Engine, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # For a busy machine.
    monkeypatch.setattr(rank_stacks, "_ANSWER_S", 20.0)
    monkeypatch.setattr(janitor, "_DUMP_S", 20.0)
    engine.execute_model(-1, 0)
    with pytest.raises(StepTimeout) as raised:
        engine.collective_rpc("reduce_without", args=(1,), timeout=3)
    report = raised.value.report
    assert report is not None
    assert report.suspects == (1,)
    first, second, third = str(report).splitlines()[:3]
    assert first.endswith("waiting for rank 1")
    assert "rank 1 has not joined: gloo:all_reduce" in second
    assert "sizes [[4]], in which rank 0 waits" in second
    lines, begin = inspect.getsourcelines(watched_workers.Stepper.reduce_without)
    (offset,) = (n for n, line in enumerate(lines) if "dist.all_reduce" in line)
    where = f"{watched_workers.__file__}:{begin + offset}, in reduce_without: dist.all_reduce("
    assert third.startswith(f"rank 0 is at {where}")
    path = report.dump
    assert path is not None
    eventually(lambda: _is_complete(path), "the dump is complete")
    assert read_dump(path).about["cause"] == "\n".join((first, second, third))
