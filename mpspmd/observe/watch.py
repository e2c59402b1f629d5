"""Watching engines from outside: found by their shared memory, read without their help."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass, field

import psutil

from mpspmd._ring import Ring, StatusPage
from mpspmd.observe.stats import EngineStats, RankStats, read_stats
from mpspmd.transport.segment import MEMFD_NAME, SHM

_LINKS = (f"{SHM}/#", f"/memfd:{MEMFD_NAME} ")
"""How the link of a segment's descriptor begins: a file in /dev/shm without a name, or a memory file."""
_MAGICS = (b"mspmRing", b"mspmStat")
"""How segments of any version begin: csrc/ring/layout.h."""

Key = tuple[int, int]
"""An engine: its process, and its status page's inode, since a process may have several."""


class Watched:
    """One engine's status page and request ring, opened read-only through its own descriptors."""

    def __init__(self, key: Key, page: StatusPage, ring_fd: int) -> None:
        self.key = key
        self._page = page
        self._ring_fd = ring_fd

    def read(self) -> EngineStats:
        capacity, tail, heads = Ring.look(self._ring_fd)
        return read_stats(self._page, capacity, tail, heads)

    def close(self) -> None:
        os.close(self._ring_fd)


class ForeignLayout(Exception):
    """A process has segments of another version of mpspmd."""


def watch_engines(pid: int) -> list[Watched]:
    """The engines of a process: most have none. PermissionError, ForeignLayout."""
    found: list[Watched] = []
    rings: dict[int, int] = {}  # inode: descriptor
    pages: list[tuple[Key, StatusPage]] = []
    n_ours = n_known = 0
    try:
        for path in _unnamed_files(pid):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            if os.pread(fd, 8, 0) not in _MAGICS:
                os.close(fd)
                continue
            n_ours += 1
            inode = os.fstat(fd).st_ino
            if _is_ring(fd):
                n_known += 1
                if rings.setdefault(inode, fd) != fd:
                    os.close(fd)
                continue
            page = _page(fd)
            os.close(fd)
            n_known += page is not None
            # Ranks that are starting have it as well; it says who the engine is.
            if page is not None and page.engine_pid == pid:
                pages.append(((pid, inode), page))
        for key, page in pages:
            if page.ring_inode in rings:
                found.append(Watched(key, page, rings.pop(page.ring_inode)))
    except (FileNotFoundError, ProcessLookupError):
        return found  # it has ended meanwhile
    finally:
        for fd in rings.values():
            os.close(fd)
    if n_ours and not n_known:
        raise ForeignLayout(pid)
    return found


def _unnamed_files(pid: int) -> list[str]:
    """Paths that open them."""
    folder = f"/proc/{pid}/fd"
    paths = []
    for name in os.listdir(folder):
        with contextlib.suppress(FileNotFoundError):
            if os.readlink(f"{folder}/{name}").startswith(_LINKS):
                paths.append(f"{folder}/{name}")
    return paths


def _is_ring(fd: int) -> bool:
    with contextlib.suppress(ValueError):
        Ring.look(fd)
        return True
    return False


def _page(fd: int) -> StatusPage | None:
    with contextlib.suppress(ValueError):
        return StatusPage(fd)
    return None


@dataclass(frozen=True)
class RankView:
    """A rank between two looks."""

    stats: RankStats
    steps_per_s: float
    busy_percent: float
    """Of the time between the looks: not waiting for requests."""
    cpu_percent: float | None
    """Of one core; None when it can't be read."""
    memory_bytes: int | None
    """Resident; None when it can't be read."""

    @property
    def state(self) -> str:
        """loading, idle, or the method that it is in."""
        if self.stats.phase in ("loading", "waiting"):
            return {"waiting": "idle"}.get(self.stats.phase, self.stats.phase)
        return self.stats.method or self.stats.phase


@dataclass(frozen=True)
class EngineView:
    """An engine between two looks."""

    pid: int
    command: str
    steps: int
    steps_per_s: float
    ring_fill: float
    cpu_percent: float | None
    memory_bytes: int | None
    ranks: tuple[RankView, ...]


@dataclass
class _Known:
    """What was seen of an engine at the last look."""

    watched: Watched
    seen: EngineStats
    at: float
    processes: dict[int, psutil.Process] = field(default_factory=dict)


class Watcher:
    """Finds this user's engines and looks at them, time after time. One thread."""

    def __init__(self, pid: int | None = None) -> None:
        self._only = pid
        self._known: dict[Key, _Known] = {}
        self.unreadable: list[int] = []
        """Processes of this user that may not be looked into, at the last find()."""
        self.foreign: list[int] = []
        """Engines of other versions of mpspmd."""

    def find(self) -> None:
        """Takes up engines that are new, drops those that have ended."""
        self.unreadable, self.foreign = [], []
        there: set[Key] = set()
        for pid in _own_pids() if self._only is None else [self._only]:
            try:
                engines = watch_engines(pid)
            except PermissionError:
                self.unreadable.append(pid)
            except ForeignLayout:
                self.foreign.append(pid)
            else:
                there.update(engine.key for engine in engines)
                for engine in engines:
                    self._take_up(engine)
        for key in self._known.keys() - there:
            self._known.pop(key).watched.close()

    def _take_up(self, engine: Watched) -> None:
        if engine.key in self._known:
            engine.close()
            return
        known = _Known(engine, engine.read(), time.monotonic())
        self._known[engine.key] = known
        for pid in (known.seen.pid, *(rank.pid for rank in known.seen.ranks)):
            _cpu_percent(known, pid)  # from now on

    def look(self) -> list[EngineView]:
        """All engines, the busiest first; rates are since the last look, or since find()."""
        views = [self._look(known) for known in self._known.values()]
        return sorted(views, key=lambda view: (-view.steps_per_s, view.pid))

    def _look(self, known: _Known) -> EngineView:
        before, then = known.seen, known.at
        stats = known.seen = known.watched.read()
        known.at = time.monotonic()
        seconds = max(known.at - then, 1e-6)
        ranks = []
        for rank, earlier in zip(stats.ranks, before.ranks, strict=True):
            idle_s = rank.idle_s - earlier.idle_s
            loading = rank.phase == "loading"
            ranks.append(
                RankView(
                    rank,
                    (rank.step - earlier.step) / seconds,
                    100.0 if loading else 100 * min(1.0, max(0.0, 1 - idle_s / seconds)),
                    _cpu_percent(known, rank.pid),
                    _memory(known, rank.pid),
                )
            )
        return EngineView(
            stats.pid,
            _command(known, stats.pid),
            stats.steps,
            (stats.steps - before.steps) / seconds,
            stats.ring_fill,
            _cpu_percent(known, stats.pid),
            _memory(known, stats.pid),
            tuple(ranks),
        )


def _own_pids() -> list[int]:
    own = os.getuid()
    pids = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.uids().real == own:
                pids.append(process.pid)
    return pids


def _process(known: _Known, pid: int) -> psutil.Process:
    if pid not in known.processes:
        known.processes[pid] = psutil.Process(pid)
    process = known.processes[pid]
    if not process.is_running():  # its number may be another process's by now
        raise psutil.NoSuchProcess(pid)
    return process


def _cpu_percent(known: _Known, pid: int) -> float | None:
    """Since the last time that it was asked."""
    with contextlib.suppress(psutil.Error):
        return _process(known, pid).cpu_percent(None)
    return None


def _memory(known: _Known, pid: int) -> int | None:
    with contextlib.suppress(psutil.Error):
        return int(_process(known, pid).memory_info().rss)
    return None


def _command(known: _Known, pid: int) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(_process(known, pid).cmdline())
    return "?"
