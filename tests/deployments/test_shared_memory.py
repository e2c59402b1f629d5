"""Where /dev/shm can't be used, a run does without it; where nothing can be used, it says so."""

from __future__ import annotations

import json
import os
import shlex
import uuid
from pathlib import Path

import pytest
from traces import Traces, remove_control_group, skip_unless_it_works

_UNSHARE = (
    ("unshare", "--mount") if os.geteuid() == 0 else ("unshare", "--mount", "--map-root-user")
)
_WITHOUT = {
    "no files without a name": "mount --bind /proc/self /dev/shm",
    "read-only": "mount -t tmpfs -o ro tmpfs /dev/shm",
    "too small": "mount -t tmpfs -o size=1m tmpfs /dev/shm",
    "missing": "cp -a /dev/null /dev/zero /dev/urandom {folder} && mount --bind {folder} /dev",
}


@pytest.fixture(params=_WITHOUT)
def without(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Shell commands that take /dev/shm away in one way."""
    folder = tmp_path_factory.mktemp("dev")
    command = _WITHOUT[request.param].format(folder=shlex.quote(str(folder)))
    skip_unless_it_works(*_UNSHARE, "sh", "-c", command)
    return f"{command} &&"


def test_a_run_does_without_dev_shm_and_says_so_once(without: str, traces: Traces) -> None:
    done = traces.run("echo.py", "2", before=without, prefix=_UNSHARE)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr
    (line,) = done.stderr.splitlines()
    assert "/dev/shm can't be used" in line
    assert "memfd_create" in line


def test_doctor_says_beforehand_that_it_will(without: str, traces: Traces) -> None:
    done = traces.run("mpspmd-doctor", "-n", "2", "--seconds", "0", before=without, prefix=_UNSHARE)
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = [line for line in done.stdout.splitlines() if "/dev/shm  " in line]
    assert line.split()[0] == "note", line
    assert "memfd_create" in done.stdout


def test_top_finds_an_engine_without_dev_shm(traces: Traces) -> None:
    small = "mount -t tmpfs -o size=1m tmpfs /dev/shm"
    skip_unless_it_works(*_UNSHARE, "sh", "-c", small)
    done = traces.run("watched.py", before=f"{small} &&", prefix=_UNSHARE)
    (view,) = json.loads(done.stdout)
    assert len(view["ranks"]) == 2, done.stderr


@pytest.mark.parametrize("refused", ["memfd_create", "both"])
def test_a_refused_memfd_is_named_only_if_it_is_needed(refused: str, traces: Traces) -> None:
    skip_unless_it_works(*_UNSHARE, "sh", "-c", _WITHOUT["read-only"])
    before = f"{_WITHOUT['read-only']} &&" if refused == "both" else ""
    done = traces.run("without_memfd.py", "2", before=before, prefix=_UNSHARE)
    if refused == "memfd_create":
        assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")
        return
    last = done.stderr.splitlines()[-1]
    assert last.startswith("mpspmd.errors.SegmentError: "), done.stderr
    for words in ("/dev/shm: Read-only file system", "memfd_create: Operation not permitted"):
        assert words in last, last


def test_a_run_never_takes_more_memory_than_its_control_group_has(traces: Traces) -> None:
    mount = Path("/sys/fs/cgroup/memory")
    group = mount / f"mpspmd-test-{uuid.uuid4().hex}"
    limit = "memory.limit_in_bytes"
    try:
        group.mkdir()
        (group / limit).write_text(str(256 << 20))
    except OSError as error:
        pytest.skip(f"no control group for memory can be made: {error}")
    try:
        done = traces.run(
            "echo.py",
            "1",
            before=f"echo $$ > {group}/cgroup.procs &&",
            MPSPMD_REQUEST_RING_BYTES=str(1 << 30),
        )
        last = done.stderr.splitlines()[-1]
        assert last.startswith("mpspmd.errors.SegmentError: "), done.stderr
        assert "left of the container's limit" in last
        assert "MPSPMD_REQUEST_RING_BYTES" in last
    finally:
        remove_control_group(group)
