"""Too few threads and processes are one error that names need and limit, and nothing worse."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from traces import HERE, Traces, remove_control_group

_ENOUGH = 40
"""For one rank and a shell; more than that is allowed at the end of the search."""


class Group:
    """A control group that limits how many processes and threads there may be."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def limit(self, number: int) -> str:
        """Shell commands after which a program has this limit."""
        (self._folder / "pids.max").write_text(str(number))
        return f"echo $$ > {self._folder}/cgroup.procs &&"


@pytest.fixture
def group() -> Iterator[Group]:
    mounts = [Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup")]
    mount = next((mount for mount in mounts if mount.is_dir()), mounts[0])
    folder = mount / f"mpspmd-test-{uuid.uuid4().hex}"
    try:
        folder.mkdir()
        (folder / "pids.max").write_text("max")
    except OSError as error:
        if folder.is_dir():
            folder.rmdir()
        pytest.skip(f"no control group for processes can be made: {error}")
    yield Group(folder)
    remove_control_group(folder)


def _says_need_and_limit(words: str, limit: int) -> bool:
    return f"the control group allows {limit} in all" in words and "more threads" in words


def test_at_every_limit_a_run_works_or_says_what_it_needs(group: Group, traces: Traces) -> None:
    outcomes = []
    # The shell becomes the interpreter, which just starts with 1.
    for limit in range(1, _ENOUGH + 1):
        done = traces.run("echo.py", "1", before=group.limit(limit))
        if (done.returncode, done.stdout, done.stderr) == (0, "ok\n", ""):
            break
        last = done.stderr.splitlines()[-1]
        outcomes.append((limit, done.returncode))
        assert done.returncode == 1, (limit, done)
        assert last.startswith("mpspmd.errors.SegmentError: an engine with 1 rank(s) needs 16"), (
            last
        )
        assert _says_need_and_limit(last, limit), last
    else:
        pytest.fail(f"{_ENOUGH} are not enough: {outcomes}")
    assert len(outcomes) > 10


@pytest.mark.parametrize("free", [0, 1, 2, 3, 4, 8])
def test_a_rank_that_cannot_start_its_threads_says_so(
    free: int, group: Group, traces: Traces
) -> None:
    path = os.pathsep.join([str(HERE / "busy"), traces.environment["PYTHONPATH"]])
    done = traces.run(
        "echo.py", "1", before=group.limit(60), PYTHONPATH=path, FREE_THREADS=str(free)
    )
    if free == 8:
        assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")
        return
    assert done.returncode == 1, done
    error = done.stderr.rpartition("mpspmd.errors.")[2]
    assert error.startswith("StartupError: 1 rank(s) failed while starting"), done.stderr
    assert _says_need_and_limit(error, 60), error
    assert "SIGABRT" not in done.stderr


def test_the_launcher_says_so_too(group: Group, traces: Traces) -> None:
    done = traces.run("mpspmd-launch", "-n", "1", str(HERE / "echo.py"), before=group.limit(20))
    assert "a launcher of 1 rank(s) needs 25" in done.stderr, done
    # It is no matter of an option.
    assert (done.returncode, "--help" in done.stderr) == (1, False), done
    assert _says_need_and_limit(done.stderr, 20)


def test_the_launcher_names_too_few_descriptors(traces: Traces) -> None:
    done = traces.run("mpspmd-launch", "-n", "1", str(HERE / "echo.py"), before="ulimit -n 25;")
    assert done.returncode == 1, done
    assert done.stderr.count("\n") == 1
    assert (
        "a launcher of 1 rank(s) needs 33 more file descriptors, and the limit is 25" in done.stderr
    )


def test_doctor_names_the_same_need_and_limit(group: Group, traces: Traces) -> None:
    done = traces.run("mpspmd-doctor", "-n", "40", "--seconds", "0", before=group.limit(100))
    assert done.returncode == 1
    (line,) = [line for line in done.stdout.splitlines() if "threads and processes  " in line]
    assert line.split()[0] == "fails"
    assert "the control group allows 100 in all" in line
    assert "250 are needed" in line
