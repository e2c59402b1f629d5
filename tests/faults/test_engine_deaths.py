"""The engine's process dies, is interrupted, or just ends: nothing is left."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(120)

Play = Callable[..., Any]


@pytest.mark.parametrize("name", ["idle", "long_call"])
def test_ranks_and_run_folder_go_when_the_engine_is_killed(
    play: Play, eventually: Any, name: str
) -> None:
    scene = play(name)
    scene.wait_until_ready()
    assert len(scene.run_dirs()) == len(scene.marks("scratch-*")) == 1
    ranks = [process for process in scene.processes() if process.pid in scene.pids[1:]]
    assert len(ranks) == 2
    scene.signal_engine(signal.SIGKILL)
    assert scene.end() == -signal.SIGKILL
    eventually(lambda: not scene.processes(), "no process is left", seconds=10)
    assert not scene.run_dirs()
    assert not scene.marks("scratch-*")
    assert "Traceback" not in scene.errors()


@pytest.mark.parametrize("name", ["calls", "long_call"])
def test_ctrl_c_during_calls_ends_everything_with_one_traceback(
    play: Play, eventually: Any, name: str
) -> None:
    scene = play(name, MPSPMD_SHUTDOWN_TIMEOUT_S="0.5")
    scene.wait_until_ready()
    scene.signal_all(signal.SIGINT)
    assert scene.end() == -signal.SIGINT
    _check_interrupted(scene, eventually)
    assert len(scene.marks("shutdown-*")) == 2


def test_ctrl_c_while_workers_are_made_ends_everything_with_one_traceback(
    play: Play, eventually: Any
) -> None:
    scene = play("slow_start")
    eventually(lambda: scene.marks("making"), "a worker is being made", seconds=40)
    scene.signal_all(signal.SIGINT)
    assert scene.end() == -signal.SIGINT
    _check_interrupted(scene, eventually)


def test_ctrl_c_while_ranks_import_ends_everything_with_one_traceback(
    play: Play, eventually: Any
) -> None:
    scene = play("idle", SCENE_IMPORT_TAKES="5")
    eventually(lambda: scene.marks("importing"), "a rank imports", seconds=40)
    scene.signal_all(signal.SIGINT)
    assert scene.end() == -signal.SIGINT
    _check_interrupted(scene, eventually)


@pytest.mark.parametrize("moment", ["while", "after"])
def test_ctrl_c_when_a_process_has_just_been_made_ends_everything_with_one_traceback(
    play: Play, eventually: Any, moment: str
) -> None:
    scene = play(f"interrupted_{moment}_starting_a_process")
    assert scene.end() == -signal.SIGINT
    _check_interrupted(scene, eventually)


def _check_interrupted(scene: Any, eventually: Any) -> None:
    eventually(lambda: not scene.processes(), "no process is left", seconds=10)
    assert not scene.run_dirs()
    errors = scene.errors()
    assert errors.startswith("Traceback (most recent call last)"), errors
    assert errors.count("Traceback") == 1, errors
    assert errors.endswith("\nKeyboardInterrupt\n"), errors


def test_an_engine_that_nobody_shuts_down_ends_with_its_process(
    play: Play, eventually: Any
) -> None:
    scene = play("forgetful")
    assert scene.end() == 0
    eventually(lambda: not scene.processes(), "no process is left", seconds=10)
    assert scene.errors() == ""
    assert len(scene.marks("shutdown-*")) == 2
    assert not scene.run_dirs()


def test_an_engine_that_nobody_shuts_down_ends_ranks_whose_threads_never_end(
    play: Play, eventually: Any
) -> None:
    scene = play("threads_that_never_end")
    assert scene.end() == 0
    eventually(lambda: not scene.processes(), "no process is left", seconds=10)
    assert scene.errors().startswith("ranks had to be killed")
    assert len(scene.marks("shutdown-*")) == 2
    assert not scene.run_dirs()


def test_an_exit_in_the_middle_of_a_step_keeps_its_exit_code(play: Play, eventually: Any) -> None:
    scene = play("fails_in_the_middle")
    assert scene.end() == 5
    eventually(lambda: not scene.processes(), "no process is left", seconds=10)
    assert scene.errors() == ""
    assert len(scene.marks("shutdown-*")) == 2
    assert not scene.run_dirs()
