"""Ranks: the processes of a run, from their start to their end."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import zmq

from mpspmd.codec.steps import StepCodec
from mpspmd.config import RuntimeConfig
from mpspmd.control.plane import EnginePlane, control_address
from mpspmd.engine.supervisor import Supervisor
from mpspmd.errors import SegmentError
from mpspmd.machine.advice import with_advice
from mpspmd.notice import notice
from mpspmd.processes.death_pipe import DeathPipe
from mpspmd.processes.janitor import Janitor
from mpspmd.processes.process import Process
from mpspmd.processes.run_dir import RunDir, known_places
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

_FAILED_PATIENCE_S = 1.0
"""How long the survivors of a dead rank may take to leave: they may wait for it in a collective."""


_STACKS_S = 0.2
"""How long a rank's control thread may take to answer; a signal goes to those that don't."""


class Ranks:
    """`start()` once, `stop()` once, from the engine's thread; the rest from any."""

    def __init__(self, world_size: int, config: RuntimeConfig) -> None:
        self._world_size = world_size
        self._config = config
        self._processes: list[Process] = []
        self._supervisor: Supervisor | None = None
        self._run_dir: RunDir | None = None
        self._janitor: Janitor | None = None
        self._death_pipes: list[DeathPipe] = []
        self._stack_files: list[StackFile] = []
        self._asking = threading.Lock()

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._processes]

    @property
    def any_gone(self) -> bool:
        """Whether a rank that was ready has ended, whoever may have noticed."""
        supervisor = self._supervisor
        if supervisor is None or not supervisor.all_ready(self._world_size):
            return False
        return not all(process.is_alive() for process in self._processes)

    def wake(self) -> None:
        """Makes the supervisor ask what is due."""
        if self._supervisor is not None:
            self._supervisor.wake()

    def stacks(self, ranks: Sequence[int]) -> dict[int, str]:
        """What the threads of these ranks execute, or why it isn't known. Within half a second."""
        if self._supervisor is None:
            return {}
        with self._asking:
            answers = self._supervisor.ask_for_stacks(ranks, _STACKS_S)
            for rank in set(ranks) - answers.keys():
                answers[rank] = self._stacks_by_signal(rank)
            return answers

    def _stacks_by_signal(self, rank: int) -> str:
        """Of a rank whose control thread doesn't get the interpreter's lock."""
        process = self._processes[rank]
        usage = process.usage()
        if usage is None:
            return "(no stack: its process is gone)"
        if usage.state in HELD:
            return f"(no stack: its process is {HELD[usage.state]})"
        text = self._stack_files[rank].request(process)
        return text or f"(no stack: it doesn't answer; {usage.state})"

    def usage(self, rank: int) -> Usage | None:
        """What a rank's process does; None when it has ended."""
        return self._processes[rank].usage()

    def start(
        self,
        segments: ChannelSegments,
        make_supervisor: Callable[[EnginePlane], Supervisor],
        worker: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        around_start: AroundStart | None,
        remove_at_end: Sequence[str],
        start_ranks: StartRanks,
        step_codec: StepCodec | None = None,
    ) -> None:
        """Returns when every worker is made. Whatever it raises, `stop()` undoes."""
        try:
            self._janitor = Janitor(known_places(self._config.runtime_dir), remove_at_end)
            self._run_dir = RunDir(self._config.runtime_dir, self._janitor.remove_at_end)
            folder = self._run_dir.path
            plane = EnginePlane(control_address(folder))
        except (OSError, zmq.ZMQError) as error:
            if isinstance(error, SegmentError):
                raise
            raise SegmentError(
                f"the control plane can't be opened: {with_advice(error)}"
            ) from error
        if self._run_dir.passed_over:
            logger.warning("the run's folder is %s (%s)", folder, self._run_dir.passed_over)
        self._supervisor = make_supervisor(plane)
        of_engine = signals_of_engine()
        ranks = [
            RankStart(
                serve=serve,
                rank=rank,
                world_size=self._world_size,
                worker=worker,
                args=args,
                kwargs=kwargs,
                segments=segments,
                run_dir=folder,
                digest_requests=self._config.digest_requests,
                janitor=self._janitor,
                death_pipe=DeathPipe(),
                stack_file=StackFile(),
                signals_of_engine=of_engine,
                step_codec=step_codec,
            )
            for rank in range(self._world_size)
        ]
        self._death_pipes = [rank.death_pipe for rank in ranks]
        self._stack_files = [rank.stack_file for rank in ranks]
        try:
            with existing_working_directory():
                start_ranks(ranks, around_start or _nothing_around, self._processes)
        except OSError as error:
            if isinstance(error, SegmentError):
                raise
            raise SegmentError(f"the ranks can't be started: {with_advice(error)}") from error
        self._supervisor.watch(self._processes, self._last_words)
        self._supervisor.wait_until_ready(self._world_size, self._config.start_timeout_s)

    def _last_words(self, rank: int) -> str:
        """Why a rank says that it can't be started, if it couldn't even reach the control plane."""
        return self._stack_files[rank].read()

    def expect_end(self) -> None:
        """From now on a rank's end is no failure."""
        if self._supervisor is not None:
            self._supervisor.expect_deaths()

    def stop(self, *, after_a_death: bool) -> None:
        """Lets the workers shut down, then insists; nothing of the run is left."""
        self.expect_end()
        if self._supervisor is not None:
            self._supervisor.ask_to_leave(range(self._world_size))
        self._end(self._patience(after_a_death))
        if self._supervisor is not None:
            self._supervisor.close()
        for process in self._processes:
            process.close()
        for death_pipe, stack_file in zip(self._death_pipes, self._stack_files, strict=True):
            death_pipe.close()
            stack_file.close()
        if self._run_dir is not None:
            self._run_dir.remove()
        if self._janitor is not None:
            self._janitor.close()

    def close_copies(self) -> None:
        """In a process forked from the engine's: the ranks, and what ends with them, stay the engine's."""
        for process in self._processes:
            process.close_copies()
        for death_pipe in self._death_pipes:
            death_pipe.close()
        if self._janitor is not None:
            self._janitor.close()

    def end_survivors(self) -> None:
        """Ends the ranks of a run that has failed: the rings tell them to leave; then it insists."""
        self._end(self._patience(after_a_death=True))

    def _end(self, patience_s: float) -> None:
        begun = self._supervisor.has_begun if self._supervisor is not None else lambda rank: False
        killed = stop_ranks(self._processes, patience_s, begun)
        if killed and self._supervisor is not None and self._supervisor.all_ready(self._world_size):
            notice(
                logger.warning,
                "ranks had to be killed: pids %s; a worker's shutdown, or a thread that isn't a daemon, "
                "has taken longer than %g s (after a failure at most 1 s, else MPSPMD_SHUTDOWN_TIMEOUT_S)",
                killed,
                patience_s,
            )

    def _patience(self, after_a_death: bool) -> float:
        """How long ranks may take to leave by themselves."""
        if self._supervisor is None or not self._supervisor.all_ready(self._world_size):
            return 0.0  # there is nothing to shut down in a worker that isn't made yet
        if after_a_death:
            return min(_FAILED_PATIENCE_S, self._config.shutdown_timeout_s)
        return self._config.shutdown_timeout_s


def _nothing_around(rank: int) -> AbstractContextManager[object]:
    return contextlib.nullcontext()
