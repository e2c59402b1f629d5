"""Segment: shared memory without a name, allocated at once, handed on by descriptor."""

from __future__ import annotations

import mmap
import multiprocessing
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from mpspmd.errors import MpSpmdError, SegmentError
from mpspmd.transport.segment import Segment

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def segment() -> Any:
    made = Segment.create(1 << 16)
    yield made
    made.close()


def test_a_segment_has_no_name_as_soon_as_it_exists(segment: Segment) -> None:
    target = os.readlink(f"/proc/self/fd/{segment.fd}")
    assert target.endswith(" (deleted)")
    assert not Path(target.removesuffix(" (deleted)")).exists()


def test_its_pages_are_allocated_and_zero(segment: Segment) -> None:
    assert segment.size == 1 << 16
    assert os.fstat(segment.fd).st_blocks * 512 >= 1 << 16
    assert os.pread(segment.fd, 1 << 16, 0) == bytes(1 << 16)


def test_only_its_owner_may_open_it_and_no_program_that_is_executed(segment: Segment) -> None:
    assert os.fstat(segment.fd).st_mode & 0o777 == 0o600
    assert not os.get_inheritable(segment.fd)


def test_a_segment_that_does_not_fit_is_refused_with_needed_and_free_bytes(
    eventually: Any,
) -> None:
    # More than there can ever be: refused at once, before a page of it is taken.
    size = psutil.virtual_memory().total + (1 << 20)
    files = os.listdir("/proc/self/fd")
    with pytest.raises(SegmentError, match=rf"{size} bytes.* \d+ bytes are left") as caught:
        Segment.create(size)
    assert "docker run --memory" in str(caught.value)
    assert "MPSPMD_REQUEST_RING_BYTES" in str(caught.value)
    assert isinstance(caught.value, MpSpmdError)
    assert isinstance(caught.value, OSError)
    # A thread of an engine of another test's may have a file open for a moment.
    eventually(lambda: {*os.listdir("/proc/self/fd")} <= {*files}, "nothing of it is open")


_AT_THE_LIMIT = """
import os, resource
from mpspmd.errors import SegmentError
from mpspmd.transport.segment import Segment
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
segments = []
try:
    while True:
        segments.append(Segment.create(4096))
except SegmentError as error:
    assert 20 < len(segments) < 40, len(segments)
    assert "ulimit -n" in str(error), error
for segment in segments:
    segment.close()
Segment.create(4096)
print("usable again")
"""


def test_the_limit_of_open_files_is_an_error_that_names_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _AT_THE_LIMIT], capture_output=True, text=True, timeout=50
    )
    assert done.stdout == "usable again\n", done.stderr


_ENGINE_AT_THE_LIMIT = """
import os, resource, sys, tempfile, time
import mpspmd, workers
from mpspmd.errors import SegmentError

def main():
    tempfile.tempdir = sys.argv[1]
    used = max(map(int, os.listdir("/proc/self/fd")))
    for spare in range(0, 60, 3):
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 1 + spare, 4096))
        try:
            engine = mpspmd.Engine(workers.Calculator, world_size=2)
        except SegmentError as error:
            resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
            # At the limit nothing can be removed here. The janitor does it.
            deadline = time.monotonic() + 20
            while left := os.listdir(sys.argv[1]):
                assert time.monotonic() < deadline, left
                time.sleep(0.005)
            continue
        print("enough to spare:", spare)
        return engine.shutdown()

if __name__ == "__main__":
    main()
"""


def test_an_engine_that_may_open_too_few_files_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(_ENGINE_AT_THE_LIMIT)
    folder = tmp_path / "runs"
    folder.mkdir()
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, str(script), str(folder)],
        capture_output=True,
        text=True,
        timeout=50,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split(":")[1]) > 5


def _add_one(segment: Segment) -> None:
    with mmap.mmap(segment.fd, segment.size) as memory:
        memory[0] += 1
    assert not os.get_inheritable(segment.fd)


def test_a_spawned_process_gets_the_same_memory(segment: Segment) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_add_one, args=(segment,))
    process.start()
    process.join(50)
    assert process.exitcode == 0
    assert os.pread(segment.fd, 1, 0) == b"\1"


def test_a_segment_can_be_pickled_only_for_a_process_that_is_being_spawned(
    segment: Segment,
) -> None:
    # Everywhere else there is nobody who could receive the descriptor.
    reference = pickle.dumps(segment)
    assert b"mpspmd-" not in reference.replace(b"mpspmd.", b"")


def test_mappings_outlive_the_descriptor_and_close_may_come_twice(segment: Segment) -> None:
    memory = mmap.mmap(segment.fd, segment.size)
    segment.close()
    segment.close()
    memory[0] = 7
    assert memory[0] == 7
    memory.close()
