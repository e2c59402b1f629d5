"""Two processes in C that pass a payload back and forth: the limit for any transport."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.errors import BenchmarkError
from benchmarks.peers.peer import Peer, Setup
from benchmarks.rank_processes import RankProcesses
from mpspmd.transport.segment import Segment

_SOURCE = Path(__file__).with_name("pingpong.c")
_COMPILER = os.environ.get("CC") or "cc"
_HEADER_BYTES = 3 * 128
_MAX_BYTES = 16 << 20


def _compiler_version() -> str:
    if shutil.which(_COMPILER) is None:
        raise ModuleNotFoundError(f"no C compiler named {_COMPILER}")
    said = subprocess.run([_COMPILER, "-dumpversion"], capture_output=True, text=True, check=True)
    return f"{Path(_COMPILER).name} {said.stdout.strip()}"


class CPingPong(Peer):
    """Bytes only, no pickle, no Python between messages. Both sides spin, each on its own core."""

    name = "c-pingpong"
    version = _compiler_version()
    max_ranks = 1

    def __init__(self, setup: Setup) -> None:
        self._processes = RankProcesses(self.name)
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def start(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="benchmark-pingpong-")
        library = str(Path(self._folder.name, "pingpong.so"))
        flags = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-shared", "-fPIC"]
        subprocess.run([_COMPILER, *flags, "-o", library, str(_SOURCE)], check=True)
        segment = Segment.create(_HEADER_BYTES + _MAX_BYTES)
        try:
            self._shared = _Shared(segment)
            self._processes.start(_serve, [(segment, library)])
        finally:
            segment.close()
        self._loop = ctypes.CDLL(library).engine_loop
        self._loop.restype = ctypes.c_int64
        self._processes.reports()

    @property
    def pids(self) -> Sequence[int]:
        return self._processes.pids

    def send(self, request: object) -> None:
        raise BenchmarkError(f"{self.name} measures round trips and nothing else")

    def receive(self) -> list[object]:
        raise BenchmarkError(f"{self.name} measures round trips and nothing else")

    def time_round_trips(self, request: object, messages: int, limit_ns: int) -> list[int]:
        assert isinstance(request, bytes)
        if len(request) > _MAX_BYTES:
            raise BenchmarkError(f"{self.name} takes {_MAX_BYTES} bytes, not {len(request)}")
        return self._round_trips(request, len(request), messages, limit_ns)

    def close(self) -> None:
        self._processes.stop(self._ask_to_end)
        if self._folder is not None:
            self._folder.cleanup()

    def _ask_to_end(self) -> None:
        self._round_trips(b"", -1, 1, 0)

    def _round_trips(self, payload: bytes, size: int, messages: int, limit_ns: int) -> list[int]:
        taken = (ctypes.c_int64 * messages)()
        with _on_core(0):
            made = self._loop(
                ctypes.c_void_p(self._shared.address),
                payload,
                ctypes.c_int64(size),
                ctypes.c_int64(messages),
                ctypes.c_int64(limit_ns),
                taken,
            )
        if made < 0:
            raise BenchmarkError(f"no answer from the rank of {self.name}")
        return taken[:made]


class _Shared:
    """The mapped segment."""

    def __init__(self, segment: Segment) -> None:
        self._memory = mmap.mmap(segment.fd, 0)
        self._view = ctypes.c_char.from_buffer(self._memory)
        self.address = ctypes.addressof(self._view)


def _serve(rank: int, link: Connection, segment: Segment, library: str) -> None:
    shared = _Shared(segment)
    copy = ctypes.create_string_buffer(_MAX_BYTES)
    loop = ctypes.CDLL(library).rank_loop
    link.send(None)
    with _on_core(-1):
        loop(ctypes.c_void_p(shared.address), copy)


@contextlib.contextmanager
def _on_core(index: int) -> Iterator[None]:
    """Within, this thread runs on one core: on the same one, each side would wait for the other."""
    usable = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(usable)[index]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, usable)
