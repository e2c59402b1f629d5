"""Ranks: the processes of a run, from their start to their end."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mpspmd._ring import StatusPage
from mpspmd.bridge.place import NodePlace
from mpspmd.codec.steps import PickledStepCodec, StepCodec
from mpspmd.config import RuntimeConfig
from mpspmd.engine.run_files import RunFiles
from mpspmd.errors import SegmentError
from mpspmd.machine.advice import with_advice
from mpspmd.naming import HELD
from mpspmd.notice import notice
from mpspmd.processes.death_pipe import DeathPipe
from mpspmd.processes.process import Process, Usage
from mpspmd.processes.signals import signals_of_engine
from mpspmd.processes.spawn import (
    AroundStart,
    StartRanks,
    existing_working_directory,
    stop_ranks,
)
from mpspmd.processes.stacks import StackFile
from mpspmd.processes.start import RankStart, not_picklable
from mpspmd.rank.process import serve
from mpspmd.transport.channel import ChannelSegments

if TYPE_CHECKING:  # only the head of a run over several machines needs it
    from mpspmd.bridge.remote import Remote, RemoteProcess

logger = logging.getLogger(__name__)

_SURVIVORS_S = 1.0
"""How many seconds the other ranks of a failed run may take to end by themselves."""


@dataclass(frozen=True)
class WorkerSpec:
    """What each rank needs to make its worker, and how its process is started. See `Engine`."""

    worker: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    step_codec: StepCodec | PickledStepCodec | None
    around_start: AroundStart | None
    start: StartRanks
    pickled: bytes | None = None
    """The worker and its arguments, if they go to the ranks as these bytes."""
    hash_seed: str = ""
    """The seed of the hashes on all nodes; "" on one machine, where one is made for each run."""


def for_all_nodes(spec: WorkerSpec) -> WorkerSpec:
    """What the main module defines goes to all ranks by value, because other nodes may not have that
    module.

    Raises:
        WorkerNotPicklable: The worker or its arguments can't be sent to another node.
    """
    from mpspmd.bridge.remote import pickled

    try:
        data = pickled((spec.worker, spec.args, spec.kwargs))
    except Exception as error:  # what pickling raises is up to the objects
        raise not_picklable(spec.worker, error) from error
    return replace(spec, pickled=data)


class Ranks:
    """`start()` once and `close()` once, by whoever makes and ends the engine; the rest: any thread."""

    def __init__(
        self,
        world_size: int,
        config: RuntimeConfig,
        status: StatusPage,
        place: NodePlace | None = None,
    ) -> None:
        """`status` is the page of the ranks that this process watches: on the head of all, on another
        node of that node's."""
        self.world_size = world_size
        self._local = place.ranks if place is not None else range(world_size)
        self._place = place
        self.remote: Remote | None = None
        """The ranks on other nodes, at the head of a run over several."""
        if place is not None and place.node_rank == 0:
            from mpspmd.bridge.remote import Remote

            self.remote = Remote(place, config, status)
        self._digest_requests = config.digest_requests
        self.patience_s = config.shutdown_timeout_s
        """How long workers may take to shut down."""
        self._status = status
        self.processes: list[Process] = []
        """In rank order; only those that have been started."""
        self._death_pipes: list[DeathPipe] = []
        self._stack_files: list[StackFile] = []

    def start(
        self, spec: WorkerSpec, segments: ChannelSegments, files: RunFiles, deaths_fd: int = -1
    ) -> None:
        """Returns when all processes of this node have been started. If it raises SegmentError or
        WorkerNotPicklable, those that have been started are in `processes`."""
        ranks = list[RankStart]()
        try:
            with existing_working_directory():
                elsewhere: list[RemoteProcess] = []
                if self.remote is not None:
                    from mpspmd.bridge.remote import pickled

                    spec = replace(spec, hash_seed=self.remote.hash_seed)
                    files.plane.elsewhere = self.remote.send_control
                    worker, codec = spec.pickled or b"", pickled(spec.step_codec)
                    elsewhere = self.remote.start(worker, codec, segments, files.folder, deaths_fd)
                for rank in self._local:
                    ranks.append(self._start_of(rank, spec, segments, files))
                spec.start(ranks, spec.around_start or contextlib.nullcontext, self.processes)
                self.processes += elsewhere
        except OSError as error:
            if isinstance(error, SegmentError):
                raise
            raise SegmentError(f"the ranks can't be started: {with_advice(error)}") from error
        finally:
            for each in ranks:
                each.sent()

    def _start_of(
        self, rank: int, spec: WorkerSpec, segments: ChannelSegments, files: RunFiles
    ) -> RankStart:
        self._death_pipes.append(DeathPipe())
        self._stack_files.append(StackFile())
        start = RankStart(
            serve=serve,
            rank=rank,
            local_rank=rank - self._local[0],
            world_size=self.world_size,
            worker=spec.worker,
            args=spec.args,
            kwargs=spec.kwargs,
            segments=segments,
            run_dir=files.folder,
            digest_requests=self._digest_requests,
            janitor=files.janitor,
            death_pipe=self._death_pipes[-1],
            stack_file=self._stack_files[-1],
            signals_of_engine=signals_of_engine(),
            step_codec=spec.step_codec,
            pickled=spec.pickled,
            hash_seed=spec.hash_seed,
        )
        if self._place is not None:
            start.node_rank, start.num_nodes = self._place.node_rank, self._place.num_nodes
            start.meeting_place = self._place.meeting_place
        return start

    def usage(self, rank: int) -> Usage | None:
        """What a rank's process does; None when it has ended."""
        return self.processes[rank].usage()

    def node_awaited(self, rank: int) -> str:
        """The other node that the rank is on, in words, while nothing is known of the rank; or ""."""
        if self.remote is None or rank in self._local or rank in self.remote.usages:
            return ""
        place = self.remote.place
        return f"node {place.node_of(rank)} at {place.address}"

    def stacks_by_signal(self, rank: int) -> str:
        """The stacks of a rank whose control thread doesn't get the interpreter's lock."""
        usage = self.usage(rank)
        if usage is None:
            return "(no stack: its process is gone)"
        if usage.state in HELD:
            return f"(no stack: its process is {HELD[usage.state]})"
        if rank >= len(self._stack_files):
            return f"(no stack: node {self.processes[rank].node} doesn't answer)"
        text = self._stack_files[rank].request(self.processes[rank])
        return text or f"(no stack: it doesn't answer; {usage.state})"

    def last_words(self, rank: int) -> str:
        """Why a rank can't start, as it wrote itself when it couldn't reach the control plane; or ""."""
        return self._stack_files[rank].read() if rank < len(self._stack_files) else ""

    def end(self, patience_s: float) -> None:
        """Returns when all have ended. They have been told to. After `patience_s` they get signals."""
        killed = stop_ranks(self.processes, patience_s, self._listens)
        if killed and patience_s > 0:
            notice(
                logger.warning,
                "ranks had to be killed: pids [%s]; a worker's shutdown, or a thread that isn't a daemon, "
                "has taken longer than %g s (after a failure at most 1 s, else MPSPMD_SHUTDOWN_TIMEOUT_S)",
                ", ".join(process.pid_and_node for process in killed),
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
        if self.remote is not None:
            self.remote.close()
        for process in self.processes:
            process.close()
        for death_pipe in self._death_pipes:
            death_pipe.close()
        for stack_file in self._stack_files:
            stack_file.close()

    def close_copies(self) -> None:
        """In a process forked from the engine's: the ranks, and what ends with them, stay the engine's."""
        if self.remote is not None:
            self.remote.close_copies()
        for process in self.processes:
            process.close_copies()
        for death_pipe in self._death_pipes:
            death_pipe.close()
