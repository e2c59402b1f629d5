"""Ranks: the processes of a run, from their start to their end."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from mpspmd._ring import StatusPage
from mpspmd.codec.steps import StepCodec
from mpspmd.config import RuntimeConfig
from mpspmd.engine.run_files import RunFiles
from mpspmd.errors import SegmentError
from mpspmd.machine.advice import with_advice
from mpspmd.notice import notice
from mpspmd.processes.death_pipe import DeathPipe
from mpspmd.processes.process import Process
from mpspmd.processes.signals import signals_of_engine
from mpspmd.processes.spawn import AroundStart, StartRanks, stop_ranks
from mpspmd.processes.stacks import StackFile
from mpspmd.processes.start import RankStart
from mpspmd.processes.usage import Usage
from mpspmd.processes.working_directory import existing_working_directory
from mpspmd.rank.process import serve
from mpspmd.report import HELD
from mpspmd.transport.channel import ChannelSegments

logger = logging.getLogger(__name__)

_SURVIVORS_S = 1.0
"""How many seconds the other ranks of a failed run may take to end by themselves."""


@dataclass(frozen=True)
class WorkerSpec:
    """What each rank needs to make its worker, and how its process is started. See `Engine`."""

    worker: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    step_codec: StepCodec | None
    around_start: AroundStart | None
    start: StartRanks


class Ranks:
    """`start()` once and `close()` once, by whoever makes and ends the engine; the rest: any thread."""

    def __init__(self, world_size: int, config: RuntimeConfig, status: StatusPage) -> None:
        self.world_size = world_size
        self._config = config
        self._status = status
        self.processes: list[Process] = []
        """In rank order; only those that have been started."""
        self._death_pipes: list[DeathPipe] = []
        self._stack_files: list[StackFile] = []

    @property
    def patience_s(self) -> float:
        """How long workers may take to shut down."""
        return self._config.shutdown_timeout_s

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self.processes]

    def start(self, spec: WorkerSpec, segments: ChannelSegments, files: RunFiles) -> None:
        """Returns when all processes have been started. If it raises SegmentError or WorkerNotPicklable,
        those that have been started are in `processes`."""
        of_engine, ranks = signals_of_engine(), list[RankStart]()
        try:
            for rank in range(self.world_size):
                self._death_pipes.append(DeathPipe())
                self._stack_files.append(StackFile())
                ranks.append(
                    RankStart(
                        serve=serve,
                        rank=rank,
                        world_size=self.world_size,
                        worker=spec.worker,
                        args=spec.args,
                        kwargs=spec.kwargs,
                        segments=segments,
                        run_dir=files.folder,
                        digest_requests=self._config.digest_requests,
                        janitor=files.janitor,
                        death_pipe=self._death_pipes[rank],
                        stack_file=self._stack_files[rank],
                        signals_of_engine=of_engine,
                        step_codec=spec.step_codec,
                    )
                )
            with existing_working_directory():
                spec.start(ranks, spec.around_start or _nothing_around, self.processes)
        except OSError as error:
            if isinstance(error, SegmentError):
                raise
            raise SegmentError(f"the ranks can't be started: {with_advice(error)}") from error
        finally:
            for each in ranks:
                each.sent()

    def usage(self, rank: int) -> Usage | None:
        """What a rank's process does; None when it has ended."""
        return self.processes[rank].usage()

    def stacks_by_signal(self, rank: int) -> str:
        """The stacks of a rank whose control thread doesn't get the interpreter's lock."""
        usage = self.usage(rank)
        if usage is None:
            return "(no stack: its process is gone)"
        if usage.state in HELD:
            return f"(no stack: its process is {HELD[usage.state]})"
        text = self._stack_files[rank].request(self.processes[rank])
        return text or f"(no stack: it doesn't answer; {usage.state})"

    def last_words(self, rank: int) -> str:
        """Why a rank can't start, as it wrote itself when it couldn't reach the control plane; or ""."""
        return self._stack_files[rank].read()

    def end(self, patience_s: float) -> None:
        """Returns when all have ended. They have been told to. After `patience_s` they get signals."""
        killed = stop_ranks(self.processes, patience_s, self._listens)
        if killed and patience_s > 0:
            notice(
                logger.warning,
                "ranks had to be killed: pids %s; a worker's shutdown, or a thread that isn't a daemon, "
                "has taken longer than %g s (after a failure at most 1 s, else MPSPMD_SHUTDOWN_TIMEOUT_S)",
                killed,
                patience_s,
            )

    def end_survivors(self) -> None:
        """Ends the ranks of a failed run. They may wait in a collective for the rank that has died."""
        self.end(min(_SURVIVORS_S, self.patience_s))

    def _listens(self, rank: int) -> bool:
        """Whether the rank has started so far that SIGTERM makes it shut down."""
        return self._status.line(rank).snapshot()["pid"] != 0

    def close(self) -> None:
        """Call this when they have ended."""
        for process in self.processes:
            process.close()
        for death_pipe in self._death_pipes:
            death_pipe.close()
        for stack_file in self._stack_files:
            stack_file.close()

    def close_copies(self) -> None:
        """In a process forked from the engine's: the ranks, and what ends with them, stay the engine's."""
        for process in self.processes:
            process.close_copies()
        for death_pipe in self._death_pipes:
            death_pipe.close()


def _nothing_around(rank: int) -> AbstractContextManager[object]:
    return contextlib.nullcontext()
