"""CPU quotas and cpusets, as containers have them: what a run counts on, and what doctor says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from traces import HERE, Traces

CPU = Path("/sys/fs/cgroup/cpu")
CPUSET = Path("/sys/fs/cgroup/cpuset")


def _make(parent: Path) -> Path:
    group = parent / f"mpspmd-test-{uuid.uuid4().hex[:12]}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"this user can't make a control group of version 1 in {parent}: {error}")
    return group


def _remove(group: Path) -> None:
    # None is left, unless a test has failed.
    for pid in (group / "cgroup.procs").read_text().split():
        os.kill(int(pid), signal.SIGKILL)
    # The kernel takes a moment to see that a group's last process has gone.
    for _ in range(200):
        try:
            group.rmdir()
        except OSError:
            time.sleep(0.05)
        else:
            return
    group.rmdir()


@pytest.fixture
def quota() -> Iterator[Path]:
    """A group with the time of one and a half cores, with a group in it that has no limit of its own."""
    outer = _make(CPU)
    (outer / "cpu.cfs_quota_us").write_text("150000")
    inner = outer / "inner"
    inner.mkdir()
    yield inner
    _remove(inner)
    _remove(outer)


@pytest.fixture
def cpuset() -> Iterator[Path]:
    """A group with one core, which is not the only one that this process has."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        pytest.skip("there is one core only: there is nothing to take away")
    group = _make(CPUSET)
    (group / "cpuset.cpus").write_text(str(cores[-1]))
    (group / "cpuset.mems").write_text((CPUSET / "cpuset.mems").read_text())
    yield group
    _remove(group)


def _enter(group: Path) -> str:
    """Shell commands."""
    return f"echo 0 > {group}/cgroup.procs &&"


def _start(traces: Traces, before: str = "") -> subprocess.Popen[str]:
    command = f"{before} exec {sys.executable} {HERE / 'core_count.py'} 1"
    return subprocess.Popen(
        ["/bin/sh", "-c", command],
        env=traces.environment,
        cwd=traces.folder,
        stdout=subprocess.PIPE,
        text=True,
    )


def _next_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def _stop(process: subprocess.Popen[str], traces: Traces, eventually: Callable[..., None]) -> None:
    process.kill()
    process.wait()
    # Before its control group is removed: the janitor has work to do, and is in there as well.
    eventually(lambda: not traces.processes(), "all of the run's processes have ended")


COUNT = "from mpspmd.machine.cores import usable_cores; print(usable_cores())"


def test_the_quota_of_a_parent_group_counts_like_cores(traces: Traces, quota: Path) -> None:
    done = traces.run(sys.executable, "-c", COUNT, before=_enter(quota))
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_the_quota_of_a_container_counts_where_its_path_cannot_be_seen(
    traces: Traces, quota: Path
) -> None:
    # As in Docker: the container's group is mounted in the place of the hierarchy's root.
    mount = f"{_enter(quota)} mount --bind {quota.parent} {CPU} &&"
    done = traces.run(sys.executable, "-c", COUNT, before=mount, prefix=["unshare", "--mount"])
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_a_run_counts_on_what_a_quota_gives_it_the_time_of(
    traces: Traces, quota: Path, eventually: Callable[..., None]
) -> None:
    engine = _start(traces, _enter(quota))
    assert _next_line(engine) == "1\n"
    (quota.parent / "cpu.cfs_quota_us").write_text("-1")
    assert _next_line(engine) == f"{len(os.sched_getaffinity(0))}\n"
    _stop(engine, traces, eventually)


def test_a_rank_has_no_more_threads_than_its_part_of_the_quota(traces: Traces, quota: Path) -> None:
    script = traces.folder / "threads.py"
    script.write_text("import os\nprint(os.environ['OMP_NUM_THREADS'])\n")
    command = ["mpspmd-launch", "-n", "1", "--ranks-only", str(script)]
    done = traces.run(*command, before=f"unset OMP_NUM_THREADS; {_enter(quota)}")
    assert done.stdout.endswith("1\n"), done.stdout + done.stderr
    script.unlink()


def test_doctor_names_the_quota(traces: Traces, quota: Path) -> None:
    done = traces.run("mpspmd-doctor", "--ranks", "2", "--seconds", "0", before=_enter(quota))
    (line,) = [line for line in done.stdout.splitlines() if " cores for " in line]
    assert line.startswith("slow")
    assert "a CPU quota gives the time of 1.5" in line
    assert "raise the quota (docker --cpus" in done.stdout


def test_a_run_counts_again_when_its_cores_are_taken_away_and_given_back(
    traces: Traces, cpuset: Path, eventually: Callable[..., None]
) -> None:
    engine = _start(traces)
    usable = len(os.sched_getaffinity(0))
    assert _next_line(engine) == f"{usable}\n"
    for process in traces.processes():
        (cpuset / "cgroup.procs").write_text(str(process.pid))
    assert _next_line(engine) == "1\n"
    (cpuset / "cpuset.cpus").write_text((CPUSET / "cpuset.cpus").read_text())
    assert _next_line(engine) == f"{usable}\n"
    _stop(engine, traces, eventually)
