"""Ctrl-C at any moment: a quick end, no traceback but the user's own, nothing left."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

Play = Callable[..., Any]


@pytest.mark.timeout(120)
def test_ctrl_c_at_a_random_moment_ends_a_run_quietly(play: Play) -> None:
    _check(play, times=6)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ctrl_c_at_50_random_moments_ends_each_run_quietly(play: Play) -> None:
    played = _check(play, times=50)
    assert sum(each["exit_code"] == 130 for each in played) >= 25


@pytest.mark.timeout(300)
@pytest.mark.parametrize("step", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_ctrl_c_during_shutdown_is_raised_when_it_has_ended(play: Play, step: int) -> None:
    scene = play(str(step), script="interrupted_shutdown.py")
    *interrupted, undisturbed = scene.lines()
    assert scene.end() == 0, scene.errors()
    assert scene.errors() == ""
    assert len(interrupted) * step > 40
    assert all(each["came"] for each in interrupted)
    assert not undisturbed["came"]
    # In most cases the engine was already closing.
    assert sum(each["told"] for each in interrupted) > len(interrupted) / 2
    for each in [*interrupted, undisturbed]:
        left = {name: each[name] for name in ("processes", "threads", "blocked")}
        assert left == {"processes": [], "threads": [], "blocked": []}, each
        assert each["handlers"] == [True, True], each


def _check(play: Play, times: int) -> list[dict[str, Any]]:
    # A new seed each time. It is printed, so that a failure can be repeated.
    seed = int.from_bytes(os.urandom(4), "big")
    print(f"seed {seed}")
    scene = play(str(times), str(seed), script="interrupts.py")
    played = list(scene.lines())
    assert scene.end() == 0, scene.errors()
    assert len(played) == times
    for each in played:
        assert each["left"] == [], each
        assert each["said"] == [], each
        # 0 when it came after the end of the run.
        assert each["exit_code"] in ((130,) if each["moment"] == "load" else (130, 0)), each
        # 2 s are promised, beyond the worker's own shutdown, which takes no time here.
        assert each["seconds"] < 20, each
    print(f"ended after at most {max(each['seconds'] for each in played):.2f} s")
    return played
