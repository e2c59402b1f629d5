"""How ranks end, and what the engine says of it."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from traces import Traces, remove_control_group

pytestmark = pytest.mark.timeout(60)

LIMIT = 200 << 20


def test_ranks_that_are_stopped_go_on_to_shut_their_workers_down(traces: Traces) -> None:
    done = traces.run("stopped.py", timeout_s=30, MPSPMD_SHUTDOWN_TIMEOUT_S="10")
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.splitlines()) == ["rank 0 is shut down", "rank 1 is shut down"]


def test_a_rank_that_a_debugger_holds_is_what_a_step_waits_for(traces: Traces) -> None:
    done = traces.run("traced.py", timeout_s=30)
    if done.returncode == 77:
        pytest.skip(f"processes can't be traced here: {done.stdout}")
    assert (done.returncode, done.stderr) == (0, "")
    suspects, line, stack, answer = done.stdout.splitlines()
    assert suspects == "(1,)"
    assert "process held by a debugger (gdb, strace)" in line
    assert stack == "(no stack: its process is held by a debugger (gdb, strace))"
    assert answer == "[1, 1]"


@pytest.fixture
def little_memory() -> Iterator[Path]:
    """A control group with little memory."""
    v1, v2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    mount, name = (v1, "memory.limit_in_bytes") if v1.is_dir() else (v2, "memory.max")
    folder = mount / f"mpspmd-test-{uuid.uuid4().hex}"
    try:
        folder.mkdir()
        (folder / name).write_text(str(LIMIT))
    except OSError as error:
        if folder.is_dir():
            folder.rmdir()
        pytest.skip(f"no control group for memory can be made: {error}")
    yield folder
    remove_control_group(folder)


def test_a_rank_that_the_out_of_memory_killer_ends_is_said_to_lack_memory(
    traces: Traces, little_memory: Path
) -> None:
    join = f"echo $$ > {little_memory}/cgroup.procs &&"
    done = traces.run("out_of_memory.py", before=join, timeout_s=30)
    assert done.stdout.startswith(
        "1 killed by SIGKILL; the kernel's out-of-memory killer has ended"
    )
    assert f"may use {LIMIT} bytes of memory: raise that limit (docker run --memory)" in done.stdout


def test_a_launched_rank_that_it_ends_is_said_to_lack_memory(
    traces: Traces, little_memory: Path
) -> None:
    (limit,) = [*little_memory.glob("memory.limit_in_bytes"), *little_memory.glob("memory.max")]
    limit.write_text(str(1 << 30))  # enough for the launcher
    rank = [sys.executable, "-c", "bytes(bytearray(1 << 30))"]
    launch = ["mpspmd-launch", "-n", "1", "--ranks-only", "--no-python", *rank]
    join = f"echo $$ > {little_memory}/cgroup.procs &&"
    done = traces.run(*launch, before=join)
    assert done.returncode == 128 + 9, done
    assert "killed by SIGKILL; the kernel's out-of-memory killer has ended a process" in done.stderr
