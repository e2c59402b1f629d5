"""kill -9 of engine and ranks together, at any moment: no segment or folder of theirs stays."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(120)

_TIMES = 20


def test_nothing_is_left_in_shared_memory_after_kills_at_20_random_moments(
    play: Callable[..., Any], eventually: Any
) -> None:
    before = _our_segments()
    # A seed of its own each time: print it, so that a failure can be had again.
    seed = int.from_bytes(os.urandom(4), "big")
    print(f"seed {seed}")
    scene = play(str(_TIMES), str(seed), script="moments.py")
    played = list(scene.lines())
    assert scene.end() == 0, scene.errors()
    assert [moment["exit_code"] for moment in played] == [-9] * _TIMES
    assert sum(moment["was_ready"] for moment in played) >= _TIMES // 3
    assert not all(moment["was_ready"] for moment in played)
    for moment in played:
        if moment["was_ready"]:
            folder = Path(moment["folder"])
            eventually(lambda folder=folder: not list(folder.iterdir()), "the run's folder goes")
    # Others on this machine may be creating theirs right now, but not twenty for good.
    eventually(lambda: _our_segments() <= before, "no segment is left", seconds=5)
    eventually(lambda: not scene.processes(), "no process is left", seconds=10)


def _our_segments() -> set[str]:
    return {name for name in os.listdir("/dev/shm") if "mpspmd" in name}
