"""Reports: how far each rank is with a call, and why a call is not done."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mpspmd.collective import Collective
from mpspmd.naming import HELD, rank_name

_COLLECTIVE_FILES = "/distributed/"
"""In the paths of the files in which torch, and frameworks above it, wait for other ranks."""
_MAIN_THREAD = "MainThread"

_FRAME = re.compile(r'File "(.*)", line (\d+),? in (\S+)(?:\n {4}(\S.*))?')
_NOT_THE_USERS = (
    *("/torch/", "/vllm/distributed/", "/mpspmd/rank/", "/mpspmd/vllm/"),
    *("/multiprocessing/", "/threading.py"),
)
"""In the paths of the files that say nothing of what a method does."""


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
    node: int = 0
    """The machine that `pid` is on; 0: the engine's."""

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
    collectives: tuple[Collective, ...] = ()
    """The last one of each process group, as far as torch.distributed has recorded them."""

    @property
    def _main_stack(self) -> str:
        return self.stacks.partition(_MAIN_THREAD)[2].partition("\n\n")[0]

    @property
    def in_collective(self) -> bool:
        """Whether its main thread waits for other ranks, as far as its stack tells."""
        return _COLLECTIVE_FILES in self._main_stack

    @property
    def line(self) -> str:
        """Where its main thread is in the user's code: file, line, function and source; or ""."""
        frames = _FRAME.findall(self._main_stack)
        if "most recent call first" in self._main_stack:
            frames.reverse()
        own = [frame for frame in frames if not any(part in frame[0] for part in _NOT_THE_USERS)]
        for file, line, function, source in (own or frames)[-1:]:
            return f"{file}:{line}, in {function}" + (f": {source.strip()}" if source else "")
        return ""

    def __str__(self) -> str:
        p = self.progress
        done = [name for name in ("read", "started", "finished", "replied") if getattr(p, name)]
        state = HELD.get(self.state, self.state)
        return (
            f"{rank_name(p.rank, p.pid, p.node)}: {p.place}; "
            f"of this request: {', '.join(done) or 'not read'}; "
            f"process {state}, {self.cpu_s:.2f} s of CPU in the last {self.over_s:.1f} s; "
            f"{p.unread_bytes} bytes unread"
            + "".join(f"; last collective: {each}" for each in self.collectives[-1:])
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
    def _missing(self) -> tuple[Collective, list[int], list[int]] | None:
        """A collective in which ranks wait, these ranks, and those that haven't joined it."""
        for rank in self.ranks:
            for each in () if rank.progress.done else rank.collectives:
                if each.done:
                    continue
                last = {
                    other.progress.rank: found
                    for other in self.ranks
                    for found in other.collectives
                    if found.group == each.group
                }
                # The one that most are in, of those that are farthest.
                number = max(found.number for found in last.values())
                farthest = [found for found in last.values() if found.number == number]
                common = max(farthest, key=lambda found: sum(_same(found, o) for o in farthest))
                inside = [n for n, found in last.items() if _same(found, common)]
                missing = sorted(last.keys() - set(inside))
                if missing and not common.done:
                    return common, inside, missing
        return None

    @property
    def suspects(self) -> tuple[int, ...]:
        """The ranks that the others wait for, as far as can be known. The first of these groups that isn't
        empty: ranks whose process is stopped or held by a debugger; those that haven't joined a collective
        in which others wait; those not done that don't wait in a collective themselves; all not done."""
        undone = [rank for rank in self.ranks if not rank.progress.done]
        if held := [rank for rank in undone if rank.state in HELD]:
            return tuple(rank.progress.rank for rank in held)
        if self._missing is not None:
            return tuple(self._missing[2])
        awaited = [rank for rank in undone if not rank.in_collective] or undone
        return tuple(rank.progress.rank for rank in awaited)

    @property
    def headline(self) -> str:
        """Which rank is awaited, and if known in which collective and at which line of Python: up to three
        lines."""
        awaited = ", ".join(map(str, self.suspects))
        text = [
            f"{self.method} (step {self.step}) is not done after {self.seconds:.1f} s; "
            + (f"waiting for rank {awaited}" if awaited else "all ranks have done it")
        ]
        if (found := self._missing) is not None:
            collective, inside, missing = found
            text.append(
                f"{_ranks(missing)} not joined: {collective}, in which {_ranks(inside, 'wait')}; "
                + "; ".join(self._last_of(rank, collective.group) for rank in missing)
            )
        first = next((self.ranks[n] for n in self.suspects if self.ranks[n].line), None)
        if first is None or first.progress.done:
            first = next((r for r in self.ranks if not r.progress.done and r.line), None)
        if first is not None:
            text.append(f"rank {first.progress.rank} is at {first.line}")
        return "\n".join(text)

    def _last_of(self, rank: int, group: str) -> str:
        last = next(each for each in self.ranks[rank].collectives if each.group == group)
        return f"rank {rank}'s last was {last.kind} {last.number}, sizes {last.sizes}"

    def __str__(self) -> str:
        text = [
            self.headline,
            *(str(rank) for rank in self.ranks),
            f"the request ring holds {self.ring_bytes} bytes",
        ]
        if self.dump:
            text.append(f"dump: {self.dump}")
        for same in self._by_stack():
            numbers = ", ".join(str(rank.progress.rank) for rank in same)
            text += ["", f"rank{'s' * (len(same) > 1)} {numbers}:", same[0].stacks.rstrip()]
        return "\n".join(text)

    def _by_stack(self) -> list[list[RankReport]]:
        """The ranks that aren't done, in groups whose main threads have the same stack. The odd one out
        comes first."""
        groups: dict[str, list[RankReport]] = {}
        for rank in self.ranks:
            if not rank.progress.done:
                groups.setdefault(rank._main_stack or rank.stacks, []).append(rank)
        suspects = self.suspects
        return sorted(
            groups.values(), key=lambda same: (same[0].progress.rank not in suspects, len(same))
        )


def _same(one: Collective, other: Collective) -> bool:
    return (one.number, one.kind, one.sizes) == (other.number, other.kind, other.sizes)


def _ranks(ranks: list[int], verb: str = "has") -> str:
    numbers = ", ".join(map(str, ranks))
    if len(ranks) == 1:
        return f"rank {numbers} {'waits' if verb == 'wait' else 'has'}"
    return f"ranks {numbers} {'wait' if verb == 'wait' else 'have'}"
