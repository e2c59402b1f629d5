"""The engine's process is killed, is interrupted, or just ends: nothing is left."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(120)

Play = Callable[..., Any]


@pytest.mark.parametrize("doing", ["nothing", "sleep", "spin_in_python", "hold_the_gil"])
def test_ranks_end_with_a_killed_engine_whatever_they_do_and_nothing_is_left(
    play: Play, eventually: Any, doing: str
) -> None:
    scene = play("idle") if doing == "nothing" else play("busy", doing)
    scene.wait_until_ready()
    assert len(scene.run_dirs()) == len(scene.marks("scratch-*")) == 1
    assert len([each for each in scene.processes() if each.pid in scene.pids[1:]]) == 2
    if doing != "nothing":
        eventually(lambda: len(scene.marks("in-method-*")) == 2, "the ranks are in the method")
    killed = time.monotonic()
    scene.signal_engine(signal.SIGKILL)
    assert scene.end() == -signal.SIGKILL
    eventually(lambda: not scene.processes(), "no process is left")
    if doing == "hold_the_gil":
        assert time.monotonic() - killed > 1.0, "the main thread was given time to shut down"
    elif doing != "sleep":
        assert len(scene.marks("shutdown-*")) == 2, "the workers were shut down"
    eventually(lambda: not scene.run_dirs(), "the folder is gone")
    assert not scene.marks("scratch-*")
    assert "Traceback" not in scene.errors()


@pytest.mark.parametrize(
    ("scene_name", "import_s", "mark"), [("slow_start", 0, "making"), ("idle", 60, "importing")]
)
def test_ranks_that_start_end_with_a_killed_engine(
    play: Play, eventually: Any, scene_name: str, import_s: int, mark: str
) -> None:
    scene = play(scene_name, SCENE_IMPORT_TAKES=str(import_s))
    eventually(lambda: scene.marks(mark), f"a rank is {mark}", seconds=40)
    scene.signal_engine(signal.SIGKILL)
    eventually(lambda: not scene.processes(), "no process is left")


@pytest.mark.parametrize("name", ["calls", "busy"])
def test_ctrl_c_during_calls_ends_everything_with_one_traceback(
    play: Play, eventually: Any, name: str
) -> None:
    scene = play(*([name] if name == "calls" else [name, "sleep"]), MPSPMD_SHUTDOWN_TIMEOUT_S="0.5")
    scene.wait_until_ready()
    scene.signal_all(signal.SIGINT)
    assert scene.end() == -signal.SIGINT
    _check_interrupted(scene, eventually)
    assert len(scene.marks("shutdown-*")) == 2


@pytest.mark.parametrize(
    ("scene_name", "import_s", "mark"), [("slow_start", 0, "making"), ("idle", 5, "importing")]
)
def test_ctrl_c_while_ranks_start_ends_everything_with_one_traceback(
    play: Play, eventually: Any, scene_name: str, import_s: int, mark: str
) -> None:
    scene = play(scene_name, SCENE_IMPORT_TAKES=str(import_s))
    eventually(lambda: scene.marks(mark), f"a rank is {mark}", seconds=40)
    scene.signal_all(signal.SIGINT)
    assert scene.end() == -signal.SIGINT
    _check_interrupted(scene, eventually)


@pytest.mark.parametrize(
    "moment",
    ["while_starting_a_process", "after_starting_a_process", "after_starting_the_supervisor"],
)
def test_ctrl_c_when_a_process_has_just_been_made_ends_everything_with_one_traceback(
    play: Play, eventually: Any, moment: str
) -> None:
    scene = play(f"interrupted_{moment}")
    assert scene.end() == -signal.SIGINT
    _check_interrupted(scene, eventually)


def _check_interrupted(scene: Any, eventually: Any) -> None:
    eventually(lambda: not scene.processes(), "no process is left")
    assert not scene.run_dirs()
    errors = scene.errors()
    assert errors.startswith("Traceback (most recent call last)"), errors
    assert errors.count("Traceback") == 1, errors
    assert errors.endswith("\nKeyboardInterrupt\n"), errors


@pytest.mark.parametrize(
    ("name", "exit_code", "said"),
    [
        ("forgetful", 0, ""),
        ("threads_that_never_end", 0, "ranks had to be killed"),
        ("fails_in_the_middle", 5, ""),  # of a step
    ],
)
def test_an_engine_that_nobody_shuts_down_ends_with_its_process_and_keeps_its_exit_code(
    play: Play, eventually: Any, name: str, exit_code: int, said: str
) -> None:
    scene = play(name)
    assert scene.end() == exit_code
    eventually(lambda: not scene.processes(), "no process is left")
    errors = scene.errors()
    assert errors.startswith(said) if said else errors == ""
    assert len(scene.marks("shutdown-*")) == 2
    assert not scene.run_dirs()
