"""Finding engines from outside: by the shared memory that a process holds, without its help."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from mpspmd._ring import Recorder, Ring, StatusPage
from mpspmd.observe.stats import EngineStats, read_stats
from mpspmd.transport.segment import MEMFD_NAME, SHM

_LINKS = (f"{SHM}/#", f"/memfd:{MEMFD_NAME} ")
"""How /proc shows a segment's descriptor: as a file in /dev/shm without a name, or as a memory file."""
_MAGICS = (b"mspmRing", b"mspmStat", b"mspmRecd")
"""The first bytes of a segment of any version of mpspmd: csrc/layout.h."""

T = TypeVar("T")
Key = tuple[int, int]
"""Identifies an engine: its process id, and its status page's inode, since a process may have several."""


class Watched:
    """One engine's status page, request ring and recorder, opened read-only through its own descriptors."""

    def __init__(
        self, key: Key, page: StatusPage, ring_fd: int, recorder: Recorder | None = None
    ) -> None:
        self.key = key
        self.page = page
        self.recorder = recorder
        """None: it records nothing."""
        self._ring_fd = ring_fd

    def read(self) -> EngineStats:
        capacity, tail, heads, _ = Ring.look(self._ring_fd)
        return read_stats(self.page, capacity, tail, heads)

    @property
    def sent_at(self) -> float:
        """When the last request was sent, in seconds of time.monotonic(); 0.0 before the first."""
        return Ring.look(self._ring_fd)[3]

    def close(self) -> None:
        os.close(self._ring_fd)


class _ForeignLayout(Exception):
    """A process has segments of another version of mpspmd."""


@dataclass(frozen=True)
class Found:
    engines: list[Watched]
    unreadable: list[int]
    """Processes whose descriptors may not be read."""
    foreign: list[int]
    """Engines of other versions of mpspmd."""


def find_engines(only: int | None) -> Found:
    """The engines of one process; None: those of all processes of this user."""
    found = Found([], [], [])
    for pid in _own_pids() if only is None else [only]:
        try:
            found.engines.extend(_engines_of(pid))
        except PermissionError:
            found.unreadable.append(pid)
        except _ForeignLayout:
            found.foreign.append(pid)
    return found


def _own_pids() -> list[int]:
    own = os.geteuid()
    pids = []
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if name.isdecimal() and os.stat(f"/proc/{name}").st_uid == own:
                pids.append(int(name))
    return pids


def _engines_of(pid: int) -> list[Watched]:
    """The engines of a process; most processes have none.

    PermissionError when its descriptors may not be read, _ForeignLayout when they are of another version.
    """
    found: list[Watched] = []
    rings: dict[int, int] = {}  # inode: descriptor
    pages: list[tuple[Key, StatusPage]] = []
    recorders: dict[int, Recorder] = {}  # by the request ring's inode
    n_ours = n_known = 0
    try:
        for path in _unnamed_files(pid):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            if os.pread(fd, 8, 0) not in _MAGICS:
                os.close(fd)
                continue
            n_ours += 1
            inode = os.fstat(fd).st_ino
            if _parsed(Ring.look, fd):
                n_known += 1
                if rings.setdefault(inode, fd) != fd:
                    os.close(fd)
                continue
            page, recorder = _parsed(StatusPage, fd), _parsed(Recorder, fd)
            os.close(fd)
            n_known += page is not None or recorder is not None
            if recorder is not None:
                recorders[recorder.ring_inode] = recorder
            # Ranks that are starting hold the page as well, and the page says who the engine is.
            if page is not None and page.engine_pid == pid:
                pages.append(((pid, inode), page))
        for key, page in pages:
            if (ring := page.ring_inode) in rings:
                found.append(Watched(key, page, rings.pop(ring), recorders.get(ring)))
    except (FileNotFoundError, ProcessLookupError):
        return found  # the process has ended meanwhile
    finally:
        for fd in rings.values():
            os.close(fd)
    if n_ours and not n_known:
        raise _ForeignLayout(pid)
    return found


def _unnamed_files(pid: int) -> list[str]:
    """Paths in /proc that open the process's memory files and its files without a name in /dev/shm."""
    folder = f"/proc/{pid}/fd"
    paths = []
    for name in os.listdir(folder):
        with contextlib.suppress(FileNotFoundError):
            if os.readlink(f"{folder}/{name}").startswith(_LINKS):
                paths.append(f"{folder}/{name}")
    return paths


def _parsed(parse: Callable[[int], T], fd: int) -> T | None:
    with contextlib.suppress(ValueError):
        return parse(fd)
    return None
