"""A run finds a folder for its sockets, and doesn't need its working directory."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest
from traces import HERE, Traces, skip_unless_it_works

_UNSHARE = (
    ("unshare", "--mount") if os.geteuid() == 0 else ("unshare", "--mount", "--map-root-user")
)
_ECHO = str(HERE / "echo.py")
_DELETED = "mkdir gone && cd gone && rmdir ../gone &&"


@pytest.fixture
def no_temp(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Shell commands after which no temporary folder can be written to."""
    # Where Python would look for one; all but what this test needs of them becomes read-only.
    empty = shlex.quote(str(tmp_path_factory.mktemp("read-only")))
    command = (
        f"mount -t tmpfs -o ro tmpfs {empty} && export TMPDIR={empty} TMP={empty} TEMP={empty} &&"
    )
    skip_unless_it_works(*_UNSHARE, "sh", "-c", f"{command} true")
    return command


# As gettempdir() with a file system that is read-only as a whole.
_NONE_AT_ALL = """
import runpy, sys, tempfile
def none():
    raise FileNotFoundError(2, "No usable temporary directory found")
tempfile.gettempdir = none
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_without_a_temporary_folder_the_run_has_its_folder_elsewhere(
    traces: Traces, tmp_path: Path
) -> None:
    script = tmp_path / "none.py"
    script.write_text(_NONE_AT_ALL)
    try:
        done = traces.run("python", str(script), _ECHO, "1", XDG_RUNTIME_DIR="")
    finally:
        script.unlink()
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr


@pytest.mark.parametrize("command", [("echo.py", "1"), ("mpspmd-launch", "-n", "1", _ECHO)])
def test_a_deleted_working_directory_does_no_harm(command: tuple[str, ...], traces: Traces) -> None:
    done = traces.run(*command, before=_DELETED)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr


def test_a_chosen_folder_is_the_only_one(traces: Traces, no_temp: str) -> None:
    done = traces.run(
        "echo.py", "1", before=f"{no_temp} export MPSPMD_RUNTIME_DIR=$TMPDIR &&", prefix=_UNSHARE
    )
    last = done.stderr.splitlines()[-1]
    assert last.startswith("mpspmd.errors.SegmentError: "), done.stderr
    assert "Read-only file system" in last
    assert "MPSPMD_RUNTIME_DIR" in last
    assert "ulimit" not in last


def test_a_folder_that_became_read_only_is_passed_over_with_a_word(
    traces: Traces, no_temp: str
) -> None:
    """Whoever asked for the temporary folder before has it from then on."""
    done = traces.run(
        "python",
        "-c",
        "import os, sys, tempfile; tempfile.tempdir = os.environ['TMPDIR']; import echo, mpspmd; "
        "mpspmd.run(echo.Echo, echo.main, world_size=1)",
        before=no_temp,
        prefix=_UNSHARE,
        XDG_RUNTIME_DIR="",
    )
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr
    (line,) = done.stderr.splitlines()
    assert "the run's folder is /dev/shm/mpspmd-" in line
    assert "Read-only file system" in line


def test_doctor_finds_the_same_folder(traces: Traces, no_temp: str) -> None:
    done = traces.run(
        "mpspmd-doctor",
        "-n",
        "1",
        "--seconds",
        "0",
        before=f"{no_temp} export MPSPMD_RUNTIME_DIR=$TMPDIR &&",
        prefix=_UNSHARE,
    )
    (line,) = [line for line in done.stdout.splitlines() if "folder for sockets  " in line]
    assert line.split()[0] == "fails"
    assert "Read-only file system" in line


_NOT_UTF8 = os.fsdecode(b"caf\xe9")


def test_a_temporary_folder_whose_name_is_not_utf8_is_passed_over(traces: Traces) -> None:
    folder = traces.folder / _NOT_UTF8
    folder.mkdir()
    try:
        done = traces.run("echo.py", "1", TMPDIR=str(folder), XDG_RUNTIME_DIR="")
    finally:
        folder.rmdir()
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr
    assert "isn't UTF-8" in done.stderr


def test_a_chosen_folder_whose_name_is_not_utf8_is_refused(traces: Traces) -> None:
    done = traces.run("echo.py", "1", MPSPMD_RUNTIME_DIR=str(traces.folder / _NOT_UTF8))
    last = done.stderr.splitlines()[-1]
    assert last.startswith("mpspmd.errors.SegmentError: "), done.stderr
    assert "isn't UTF-8, which ZeroMQ wants: choose another folder with MPSPMD_RUNTIME_DIR" in last


@pytest.mark.parametrize("umask", ["0777", "0277", "0000"])
def test_any_umask_will_do(traces: Traces, umask: str) -> None:
    prefix = []
    if os.geteuid() == 0:  # who may open anything
        prefix = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
        skip_unless_it_works(*prefix, "true")
    done = traces.run(
        "echo.py", "2", before=f"umask {umask} &&", prefix=prefix, PYTHONDONTWRITEBYTECODE="1"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")


def test_a_run_needs_no_dev_null(traces: Traces) -> None:
    before = "mount -t tmpfs tmpfs /dev && mkdir /dev/shm && mount -t tmpfs tmpfs /dev/shm &&"
    skip_unless_it_works(*_UNSHARE, "sh", "-c", f"{before} true")
    done = traces.run("echo.py", "1", before=before, prefix=_UNSHARE)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr
