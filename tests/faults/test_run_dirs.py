"""Folders of dead runs are removed by the next one, those of living ones never; nobody else gets in."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import scenes

from mpspmd import Engine, RuntimeConfig
from mpspmd.processes.run_dir import RunDir

pytestmark = pytest.mark.timeout(60)

_MAKE_ONE_AND_WAIT = """
import sys, time
from mpspmd.processes.run_dir import RunDir
print(RunDir(sys.argv[1], lambda name: None).path, flush=True)
time.sleep(600)
"""

_DIE_WHEN_IT_IS_MADE = """
import os, pathlib, signal, sys
from mpspmd.processes.janitor import Janitor
from mpspmd.processes.run_dir import RunDir

def mkdir(path, mode):
    os.mkdir(path, mode)
    print(path, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

pathlib.Path.mkdir = mkdir
RunDir(sys.argv[1], Janitor([sys.argv[1]]).remove_at_end)
"""


def _run_dir(parent: Path) -> RunDir:
    """One that no janitor knows."""
    return RunDir(str(parent), lambda name: None)


@pytest.fixture
def dead_folder(tmp_path: Path) -> Path:
    """What a process has left that was killed with whoever would have cleaned up after it."""
    process = subprocess.Popen(
        [sys.executable, "-c", _MAKE_ONE_AND_WAIT, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    path = Path(process.stdout.readline().strip())
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    (path / "control").touch()
    return path


def test_the_folder_of_a_dead_run_is_removed_by_the_next(dead_folder: Path) -> None:
    assert dead_folder.exists()
    _run_dir(dead_folder.parent).remove()
    assert not dead_folder.exists()
    assert not list(dead_folder.parent.iterdir())


def test_a_folder_whose_maker_is_killed_that_very_moment_is_removed(
    tmp_path: Path, eventually: Any
) -> None:
    died = subprocess.run(
        [sys.executable, "-c", _DIE_WHEN_IT_IS_MADE, str(tmp_path)], capture_output=True, text=True
    )
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert Path(died.stdout.strip()).parent == tmp_path
    eventually(lambda: not list(tmp_path.iterdir()), "the janitor removes it")


_DIE_WHILE_IT_IS_REMOVED = """
import os, signal, sys
from mpspmd.processes import janitor_process

removed = []
unlink = os.unlink

def die_after_two(*args, **kwargs):
    unlink(*args, **kwargs)
    removed.append(args)
    if len(removed) == 2:
        os.kill(os.getpid(), signal.SIGKILL)

os.unlink = die_after_two
janitor_process.remove_tree(sys.argv[1])
"""


def test_what_is_left_of_a_folder_whose_remover_is_killed_is_removed_by_the_next_run(
    dead_folder: Path,
) -> None:
    (dead_folder / "other").touch()
    died = subprocess.run([sys.executable, "-c", _DIE_WHILE_IT_IS_REMOVED, str(dead_folder)])
    assert died.returncode == -signal.SIGKILL
    assert [path.name for path in dead_folder.iterdir()] == ["lock"]
    _run_dir(dead_folder.parent).remove()
    assert not list(dead_folder.parent.iterdir())


def test_the_folder_of_a_living_run_is_never_removed(dead_folder: Path) -> None:
    living = [_run_dir(dead_folder.parent) for _ in range(3)]
    assert all(run.path.exists() for run in living)
    for run in living:
        run.remove()
    assert not list(dead_folder.parent.iterdir())


_NAME = "mpspmd-01234567"


def _private_folder(path: Path) -> Path:
    path.mkdir(0o700)
    (path / "precious").touch()
    return path


def _of_another_form(folder: Path, marker: bytes) -> None:
    path = _private_folder(folder / "mpspmd-experiments")
    (path / "lock").write_bytes(marker)
    (path / "lock").chmod(0o600)


def _without_marker(folder: Path, marker: bytes) -> None:
    path = _private_folder(folder / _NAME)
    (path / "lock").touch(0o600)


def _being_made(folder: Path, marker: bytes) -> None:
    (folder / _NAME).mkdir(0o700)


def _open_to_others(folder: Path, marker: bytes) -> None:
    path = _private_folder(folder / _NAME)
    (path / "lock").write_bytes(marker)
    (path / "lock").chmod(0o600)
    path.chmod(0o755)


def _link(folder: Path, marker: bytes) -> None:
    path = _private_folder(folder / "elsewhere")
    (path / "lock").write_bytes(marker)
    (path / "lock").chmod(0o600)
    (folder / _NAME).symlink_to(path)


def _linked_lock(folder: Path, marker: bytes) -> None:
    path = _private_folder(folder / _NAME)
    (folder / "elsewhere").write_bytes(marker)
    (folder / "elsewhere").chmod(0o600)
    (path / "lock").symlink_to(folder / "elsewhere")


def _file(folder: Path, marker: bytes) -> None:
    (folder / _NAME).touch()


@pytest.mark.parametrize(
    "make",
    [_of_another_form, _without_marker, _being_made, _open_to_others, _link, _linked_lock, _file],
)
def test_what_only_looks_like_a_runs_folder_is_left_alone(
    tmp_path: Path, make: Callable[[Path, bytes], None]
) -> None:
    run = _run_dir(tmp_path)
    marker = (run.path / "lock").read_bytes()
    run.remove()
    make(tmp_path, marker)
    for path in tmp_path.rglob("*"):
        os.utime(path, (0, 0))
    before = sorted(tmp_path.rglob("*"))
    _run_dir(tmp_path).remove()
    assert sorted(tmp_path.rglob("*")) == before


def _as_nobody(attempt: Callable[[], Any]) -> str:
    """What comes of it in a process of another user: "" or the exception's name."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        outcome = ""
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            attempt()
        except BaseException as error:
            outcome = type(error).__name__
        os.write(write, outcome.encode())
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read) as file:
        return file.read()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_can_neither_open_the_segments_nor_connect(tmp_path: Path) -> None:
    # The way to the folder is open: what keeps others out must be the folder itself.
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    config = RuntimeConfig.from_env(runtime_dir=str(tmp_path), shutdown_timeout_s=2)
    if _as_nobody(lambda: None):
        pytest.skip("this root can't become another user")
    before = _descriptors("/dev/shm/#")  # other tests' engines
    with Engine(scenes.Actor, world_size=1, config=config) as engine:
        (run_dir,) = tmp_path.glob("mpspmd-*")
        assert stat.S_IMODE(run_dir.stat().st_mode) == 0o700
        address = str(run_dir / "control")

        def connect() -> None:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
                client.connect(address)

        connect()  # this user can
        assert _as_nobody(connect) == "PermissionError"
        segments = sorted(set(_descriptors("/dev/shm/#")) - set(before))
        assert len(segments) == 4  # requests, replies, the status page, the records
        for segment in segments:
            assert stat.S_IMODE(os.stat(segment).st_mode) == 0o600
            assert _as_nobody(lambda path=segment: os.open(path, os.O_RDONLY)) == "PermissionError"
        # The ranks have closed theirs, and map them.
        maps = f"/proc/{engine.pids[0]}/map_files"
        assert _as_nobody(lambda: os.listdir(maps)) == "PermissionError"


def _descriptors(name: str) -> list[str]:
    """This process's, as anybody sees them."""
    folder = f"/proc/{os.getpid()}/fd"
    paths = [f"{folder}/{fd}" for fd in os.listdir(folder)]
    return [path for path in paths if name in _target(path)]


def _target(link: str) -> str:
    with contextlib.suppress(FileNotFoundError):  # another thread has closed it
        return os.readlink(link)
    return ""
