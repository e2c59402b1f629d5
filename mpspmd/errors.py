"""Every exception that a user of mpspmd can see.

All derive from `MpSpmdError`. Where Python has an exception that says the same, that is a base as well:

    try:
        engine.execute_model(batch, timeout=5)
    except TimeoutError:  # a StepTimeout
        print("too slow; the engine stays usable")
    except concurrent.futures.BrokenExecutor:  # RankDied or EngineClosed
        print("make a new engine")

All of them are names of `mpspmd` too. `Engine.failure` tells whether the engine can still be used.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import BrokenExecutor
from typing import TYPE_CHECKING

from mpspmd.naming import rank_name

if TYPE_CHECKING:
    from mpspmd.report import StallReport

__all__ = [
    "ChannelClosed",
    "ChannelCorrupt",
    "ChannelError",
    "ChannelPoisoned",
    "CodecDesync",
    "ConfigError",
    "DecodeError",
    "DumpError",
    "EncodeError",
    "EngineClosed",
    "MpSpmdError",
    "NodeLost",
    "RankDied",
    "RankError",
    "RecordingError",
    "SegmentError",
    "StartupError",
    "StepRefused",
    "StepTimeout",
    "UnknownMethod",
    "WorkerNotPicklable",
]


class MpSpmdError(Exception):
    """The base of all exceptions of mpspmd."""


class ConfigError(MpSpmdError, ValueError):
    """A setting has a value that can't be used; says which values can."""


class SegmentError(MpSpmdError, OSError):
    """Shared memory, a file descriptor or a socket folder can't be had from this machine."""


class EncodeError(MpSpmdError, TypeError):
    """An argument or a result can't be sent to another process."""


class DecodeError(MpSpmdError):
    """What another process sent can't be rebuilt in this one."""


class CodecDesync(DecodeError):
    """A message of the delta codec doesn't fit the state of the process that reads it: a message was lost,
    repeated or changed on its way, or the states differ. Nothing of it was decoded; only a key frame
    helps."""


class DumpError(MpSpmdError, ValueError):
    """A dump file can't be read: it is none, or it is cut off or changed."""


class RecordingError(MpSpmdError, ValueError):
    """A recording of requests can't be replayed, or not to its end: it is none, it may not be trusted, or
    it is cut off or changed. `requests` is how many requests can be read."""

    def __init__(self, message: str, requests: int = 0) -> None:
        super().__init__(message, requests)
        self.requests = requests

    def __str__(self) -> str:
        return str(self.args[0])


class WorkerNotPicklable(EncodeError):
    """The worker class or its arguments can't be sent to a new process."""


class ChannelError(MpSpmdError):
    """A channel between engine and rank can't be used (any more)."""


class ChannelClosed(ChannelError):
    """The other side, or this one, has closed the channel; all that was sent has been read."""


class ChannelCorrupt(ChannelError):
    """Shared memory holds what no writer writes; the message names the offset and the values."""


class ChannelPoisoned(ChannelError):
    """The run has failed. `code` is what the failure was, `rank` the rank that is to blame, or -1."""

    def __init__(self, code: int, rank: int) -> None:
        super().__init__(code, rank)
        self.code = code
        self.rank = rank

    def __str__(self) -> str:
        return f"the run has failed (code {self.code}, rank {self.rank})"


class EngineClosed(MpSpmdError, BrokenExecutor):
    """The engine has been shut down, or belongs to another process; make a new one."""


class StepRefused(MpSpmdError):
    """A rank doesn't run a step that was sent before the engine knew that an earlier one had failed."""


class StepTimeout(MpSpmdError, TimeoutError):
    """A deadline passed before every awaited rank had replied. The engine stays usable.

    `report` says what each rank does, and which ranks the others wait for. It is None if the request was
    never sent.
    """

    def __init__(self, message: str, report: StallReport | None = None) -> None:
        super().__init__(message)
        self.report = report


class RankError(MpSpmdError):
    """A rank raised an exception.

    `rank` is the one, `method` and `step` are the call (steps count the engine's requests, from 1 on),
    `exception` and `message` are the name and the text of what was raised, and `remote_traceback` is its
    traceback. `__cause__` is the exception itself if it could be sent and rebuilt. `succeeded` are the
    ranks that had done the same call when this was reported.
    """

    def __init__(
        self,
        rank: int,
        method: str,
        step: int,
        exception: str,
        message: str,
        remote_traceback: str,
        succeeded: tuple[int, ...] = (),
    ) -> None:
        super().__init__(rank, method, step, exception, message, remote_traceback, succeeded)
        self.succeeded = succeeded
        self.rank = rank
        self.method = method
        self.step = step
        self.exception = exception
        self.message = message
        self.remote_traceback = remote_traceback

        self.original: bytes | None = None
        """What `__cause__` will be rebuilt from, when somebody is told of this error."""

    def name_those_that_succeeded(self, ranks: Iterable[int]) -> None:
        """Called by the engine, before anybody has been told of this error."""
        self.succeeded = tuple(ranks)
        self.args = (*self.args[:-1], self.succeeded)

    def __str__(self) -> str:
        done = f"\nRanks that succeeded: {', '.join(map(str, self.succeeded)) or 'none'}"
        return (
            f"rank {self.rank} raised {self.exception} in {self.method} (step {self.step}): "
            f"{self.message}{done}\n\nTraceback on rank {self.rank}:\n{self.remote_traceback}"
        )


class UnknownMethod(RankError, AttributeError):
    """The workers have no method of that name."""


class RankDied(MpSpmdError, BrokenExecutor):
    """A rank's process is gone, and with it the engine: make a new one.

    `rank` and `pid` are the process, `method` and `step` what it did last (`method` is empty if it was
    idle), `reason` is a signal or an exit code, in words. `node` is the machine that it was on: 0 is the
    engine's. `dump` is the path of the dump that was written, if MPSPMD_DUMP_DIR is set.
    """

    dump: str | None = None

    def __init__(
        self, rank: int, pid: int, method: str, step: int, reason: str, node: int = 0
    ) -> None:
        super().__init__(rank, pid, method, step, reason, node)
        self.node = node
        self.rank = rank
        self.pid = pid
        self.method = method
        self.step = step
        self.reason = reason

    def __str__(self) -> str:
        doing = f"in {self.method} (step {self.step})"
        if not self.method:
            doing = f"idle, after step {self.step}" if self.step else "before its first step"
        who = rank_name(self.rank, self.pid, self.node)
        return f"{who} died {doing}: {self.reason}{self._dump}"

    @property
    def _dump(self) -> str:
        return f"; dump: {self.dump}" if self.dump else ""


class NodeLost(RankDied):
    """A node of the run doesn't answer any more, and the engine is lost with it: make a new one.

    `node` is its number, `ranks` are its ranks, and `reason` says what is known. `rank` is the first of the
    ranks, and `method` and `step` are what that one did last, as far as the head knows.
    """

    def __init__(
        self, node: int, ranks: tuple[int, ...], reason: str, pid: int, method: str, step: int
    ) -> None:
        super().__init__(ranks[0], pid, method, step, reason, node)
        self.args = (node, ranks, reason, pid, method, step)
        self.ranks = ranks

    def __str__(self) -> str:
        ranks = f"rank{'s' * (len(self.ranks) > 1)} {', '.join(map(str, self.ranks))}"
        return f"node {self.node} with {ranks} is lost: {self.reason}{self._dump}"


class StartupError(MpSpmdError):
    """Some ranks failed while starting; nothing is left of the run. `causes` has the reason of each."""

    def __init__(self, causes: dict[int, str]) -> None:
        super().__init__(causes)
        self.causes = causes

    def __str__(self) -> str:
        ranks: dict[str, list[int]] = {}
        for rank, cause in sorted(self.causes.items()):
            ranks.setdefault(cause, []).append(rank)
        reasons = "\n".join(
            f"rank{'s' * (len(same) > 1)} {', '.join(map(str, same))}: {cause}"
            for cause, same in ranks.items()
        )
        return f"{len(self.causes)} rank(s) failed while starting\n{reasons}"


def text_of(error: BaseException) -> str:
    """str(error), also of one that can't be printed, and no subclass of str."""
    try:
        return "".join((str(error),))
    except BaseException as trouble:
        return f"(its message can't be printed: {type(trouble).__name__})"
