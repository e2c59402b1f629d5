"""Reports: how far each rank is with a call, and why a call is not done."""

from __future__ import annotations

from dataclasses import dataclass

import psutil

_COLLECTIVE_FILES = "/distributed/"
"""In the paths of the files in which torch, and frameworks above it, wait for other ranks."""
_MAIN_THREAD = "MainThread"

HELD = {
    psutil.STATUS_STOPPED: "stopped (kill -STOP, Ctrl-Z)",
    psutil.STATUS_TRACING_STOP: "held by a debugger (gdb, strace)",
}
"""The states in which a process does nothing, whatever comes; in words."""


@dataclass(frozen=True)
class Progress:
    """One rank, and one call."""

    rank: int
    pid: int
    phase: str
    """loading, waiting, decoding, running or replying; perhaps in another step than the call's."""
    method: str
    step: int
    seconds: float
    """How long it has been in this phase."""
    read: bool
    started: bool
    finished: bool
    replied: bool
    awaited: bool
    """Whether the call waits for its reply."""
    unread_bytes: int
    """What of the request ring it has not read yet."""

    @property
    def done(self) -> bool:
        return self.replied if self.awaited else self.finished

    @property
    def place(self) -> str:
        """Where the rank is, in words."""
        where = f"{self.method} (step {self.step})"
        if self.phase == "waiting":
            where = f"for a request, after {where}" if self.step else "for its first request"
        elif self.phase == "loading":
            where = "its worker"
        return f"{self.phase} {where} for {self.seconds:.1f} s"


@dataclass(frozen=True)
class RankReport:
    """One rank in a stall."""

    progress: Progress
    state: str
    """The kernel's word for the process: running, sleeping, disk-sleep, stopped, tracing-stop; or
    gone."""
    cpu_s: float
    """CPU time that it has used during the last `over_s` seconds."""
    over_s: float
    stacks: str
    """Of all its threads; or why there are none."""

    @property
    def in_collective(self) -> bool:
        """Whether its main thread waits for other ranks, as far as its stack tells."""
        main = self.stacks.partition(_MAIN_THREAD)[2].partition("\n\n")[0]
        return _COLLECTIVE_FILES in main

    def __str__(self) -> str:
        p = self.progress
        done = [name for name in ("read", "started", "finished", "replied") if getattr(p, name)]
        state = HELD.get(self.state, self.state)
        return (
            f"rank {p.rank} (pid {p.pid}): {p.place}; of this request: {', '.join(done) or 'not read'}; "
            f"process {state}, {self.cpu_s:.2f} s of CPU in the last {self.over_s:.1f} s; "
            f"{p.unread_bytes} bytes unread"
        )


@dataclass(frozen=True)
class StallReport:
    """Why a call isn't done. `str()` is one readable message."""

    method: str
    step: int
    seconds: float
    """Since the request was sent."""
    ring_bytes: int
    """The request ring's capacity."""
    ranks: tuple[RankReport, ...]
    dump: str | None = None
    """The path of the dump that was written for it."""

    @property
    def suspects(self) -> tuple[int, ...]:
        """The ranks that the others wait for, as far as can be known: those not done that don't wait
        in a collective themselves; all that aren't done, if all of those do."""
        undone = [rank for rank in self.ranks if not rank.progress.done]
        held = [rank for rank in undone if rank.state in HELD]
        awaited = held or [rank for rank in undone if not rank.in_collective] or undone
        return tuple(rank.progress.rank for rank in awaited)

    def __str__(self) -> str:
        awaited = ", ".join(map(str, self.suspects))
        text = [
            f"{self.method} (step {self.step}) is not done after {self.seconds:.1f} s; "
            + (f"waiting for rank {awaited}" if awaited else "all ranks have done it"),
            *(str(rank) for rank in self.ranks),
            f"the request ring holds {self.ring_bytes} bytes",
        ]
        if self.dump:
            text.append(f"dump: {self.dump}")
        for rank in self.ranks:
            if not rank.progress.done:
                text += ["", f"rank {rank.progress.rank}:", rank.stacks.rstrip()]
        return "\n".join(text)
