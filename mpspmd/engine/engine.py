"""Engine: the one process that decides what all ranks do."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType
from typing import Any

from mpspmd.bridge.place import NodePlace
from mpspmd.codec.steps import StepCodec
from mpspmd.config import RuntimeConfig
from mpspmd.engine.call import CallTable, check_arguments, deadline_after
from mpspmd.engine.calls import Calls
from mpspmd.engine.consequences import Consequences
from mpspmd.engine.ending import Ending
from mpspmd.engine.event_queue import EventQueue
from mpspmd.engine.events import State
from mpspmd.engine.inherited import Inherited, end_with_fork
from mpspmd.engine.observer import Observer
from mpspmd.engine.outcome import RunOutcome
from mpspmd.engine.rank_stacks import RankStacks
from mpspmd.engine.ranks import Ranks, WorkerSpec, for_all_nodes
from mpspmd.engine.reader import Reader
from mpspmd.engine.requests import RequestEncoder
from mpspmd.engine.run_files import RunFiles
from mpspmd.engine.sender import Sender
from mpspmd.engine.stall import StallWatch
from mpspmd.engine.steps import StepCalls
from mpspmd.engine.supervisor import Supervisor
from mpspmd.errors import ConfigError
from mpspmd.exceptions.fault import restore_cause
from mpspmd.log import set_level
from mpspmd.machine.green_threads import refuse_green_threads
from mpspmd.machine.room import check_room
from mpspmd.observe.stats import EngineStats, read_stats
from mpspmd.processes.hash_seed import own_seed
from mpspmd.processes.launch import refuse_an_engine_on_a_rank
from mpspmd.processes.main_module import main_to_import, refuse_while_main_is_imported
from mpspmd.processes.spawn import AroundStart, StartRanks, start_ranks
from mpspmd.transport.channel import ChannelSegments, EngineChannel
from mpspmd.transport.descriptor import open_standard_descriptors

_AFTER_AN_EXCEPTION_S = 1.0
"""How long workers may take to shut down when an exception has ended a `with` block."""


class Engine(Calls):
    """Starts N ranks, sends each request to all of them, and collects their replies.

    Any thread of the process that made it may call it; requests reach every rank in the same order.
    It holds no worker and no model, and never touches a device.
    """

    def __init__(
        self,
        worker: Callable[..., Any],
        *,
        world_size: int,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        config: RuntimeConfig | None = None,
        around_start: AroundStart | None = None,
        remove_at_end: Sequence[str] = (),
        fatal_methods: Collection[str] = ("execute_model",),
        on_cause: Callable[[BaseException], None] | None = None,
        step_codec: StepCodec | None = None,
        start: StartRanks = start_ranks,
        nodes: NodePlace | None = None,
    ) -> None:
        """Returns when every rank's worker is made.

        Args:
            worker: `worker(ctx, *args, **kwargs)` makes the worker on each rank. It and its arguments are
                pickled.
            around_start: `around_start(rank)` is a context manager, in which that rank's process is
                started; for example to set its environment.
            remove_at_end: Files that ranks may make, as paths or shell patterns. They are removed when the
                run's last process has ended, even if all of them were killed.
            fatal_methods: If one of these fails on any rank, the engine has failed, because the ranks may
                be in different states from then on.
            on_cause: Gets the cause when the engine has failed, before any caller gets it.
            step_codec: Sends the requests and replies that it knows as deltas, unless `config.step_deltas`
                is off.
            start: Starts the ranks' processes. By default they are spawned.
            nodes: For a run over several machines. This one is node 0, and starts only its own part of the
                `world_size` ranks; on each other node `mpspmd.nodes.follow` starts that node's ranks. If
                the worker is defined in the main module, that module's classes and functions are sent by
                value. Otherwise all nodes must be able to import what the calls refer to.

        When it raises, nothing of the run remains but its recording, if it has one.

        Raises:
            ConfigError: An argument has a value that can't be used, or the nodes have no secret.
            SegmentError: The machine doesn't have what the run needs.
            WorkerNotPicklable: The worker or its arguments can't be sent to a new process.
            StartupError: A worker can't be made, or a rank has ended or isn't ready in time.
        """
        open_standard_descriptors()
        refuse_an_engine_on_a_rank()
        refuse_while_main_is_imported()
        refuse_green_threads()
        super().__init__()
        set_level()
        if not isinstance(world_size, int):
            raise ConfigError(f"world_size={world_size!r}: must be a whole number of ranks")
        if not callable(worker):
            raise ConfigError(
                f"worker={worker!r}: must be a class, or a function that makes a worker"
            )
        check_arguments(args, kwargs or {})
        for name, texts in (("fatal_methods", fatal_methods), ("remove_at_end", remove_at_end)):
            if isinstance(texts, str):  # it would be taken for its letters
                raise ConfigError(f"{name}={texts!r}: must be several texts, such as [{texts!r}]")
        self._world_size = world_size
        self._config = config = config or RuntimeConfig.from_env()
        if nodes is not None:
            nodes.check(world_size, is_head=True)
            nodes = nodes if nodes.num_nodes > 1 else None
        step_codec = step_codec if config.step_deltas else None
        spec = WorkerSpec(worker, args, kwargs or {}, step_codec, around_start, start)
        by_value = start is start_ranks and not main_to_import(worker)
        if nodes is not None and start is start_ranks:
            spec = for_all_nodes(spec)
            by_value = by_value or worker.__module__ == "__main__"
        with ExitStack() as made, ExitStack() as not_started:
            # What needs closing.
            segments = ChannelSegments.create(world_size, config)
            made.callback(segments.close)
            check_room(world_size)
            self._channel = channel = EngineChannel(segments)
            made.callback(channel.release)
            files = RunFiles(config, remove_at_end, segments)
            made.callback(files.close)
            # From the end of this block on the supervisor closes the control plane.
            not_started.callback(files.plane.close)
            self._ranks = ranks = Ranks(world_size, config, channel.status, nodes)
            made.callback(ranks.close)
            # What is needed to call.
            events = EventQueue(files.plane)
            self._run_outcome = outcome = RunOutcome(channel.status)
            self._table = table = CallTable()
            stacks = RankStacks(files.plane, ranks)
            stalls = StallWatch(config.stall_warn_s, channel, table, ranks, stacks, files.janitor)
            encoder = self._make_encoder(step_codec, by_value)
            recorder = None
            if config.record_requests is not None:
                # Its import takes 4 ms, and most runs aren't recorded.
                from mpspmd.engine.recording import RecordingEncoder, start_recording

                if nodes is None and start is start_ranks:
                    spec = replace(spec, hash_seed=own_seed())
                recording = start_recording(config, spec, world_size, fatal_methods)
                encoder = recorder = RecordingEncoder(encoder.step_end, by_value, recording)
                made.callback(recorder.close)
            self._reader = reader = Reader(channel, table, events, stalls, encoder.step_end)
            if recorder is not None:
                reader.note_reply = recorder.note_reply
            self._sending = Sender(channel, reader, outcome, stalls, encoder)
            # Who notices failures and what follows from them.
            observer = Observer(files.plane, channel, table, ranks, stacks)
            consequences = Consequences(
                channel, table, reader, outcome, ranks, files.janitor, on_cause
            )
            state = State(world_size, frozenset(fatal_methods))
            supervisor = Supervisor(events, observer, consequences, stalls, channel.status, state)
            self._ending = Ending(made.pop_all(), segments, files, ranks, reader, supervisor)
            not_started.pop_all()
        self._dropped = weakref.finalize(self, self._ending.dropped)
        self._dropped.atexit = False  # type: ignore[misc]  # its stub hides the property
        end_with_fork(self)
        try:
            ranks.start(spec, segments, files, channel.deaths_fd)
            supervisor.start(config.start_timeout_s)
        except BaseException:
            self.shutdown()
            raise

    def _make_encoder(self, step_codec: StepCodec | None, by_value: bool) -> RequestEncoder:
        return RequestEncoder(step_codec.engine_end() if step_codec else None, by_value)

    def become_inherited(self, stub: Inherited) -> None:
        """In a process that has just been forked: the engine stays its parent's."""
        super().__init__()  # the thread that sends is the parent's
        self._dropped.detach()
        self._ending.become_inherited()
        names = ("_ranks", "_channel", "_run_outcome", "_table", "_reader", "_sending")
        # Keep the parts alive: their destructors would end what belongs to the parent.
        self._of_parent = [getattr(self, name) for name in names]
        for name in names:
            setattr(self, name, stub)

    # What a user calls.

    @property
    def world_size(self) -> int:
        return self._world_size

    @property
    def pids(self) -> list[int]:
        """The ranks' process ids, each on its own machine, in rank order."""
        return [process.pid for process in self._ranks.processes]

    @property
    def config(self) -> RuntimeConfig:
        return self._config

    @property
    def steps(self) -> StepCalls:
        """The calls of a program that drives the ranks step by step, as vLLM does."""
        return StepCalls(self)

    def stats(self) -> EngineStats:
        """What engine and ranks are doing, and what they have counted. Any thread; asks nobody."""
        ring = self._channel.request_ring
        stats = read_stats(self._channel.status, ring.capacity, ring.tail, ring.heads)
        return replace(stats, late_replies=self._table.late)

    def on_failure(self, callback: Callable[[BaseException], None]) -> None:
        """Calls back once with the cause when the engine has failed, in the supervisor's thread; if it has
        failed already, at once in this one. A callback that refers to the engine keeps it alive."""
        self._run_outcome.on_failure(callback)

    @property
    def failure(self) -> BaseException | None:
        """Why the engine can't be used any more; None while it can."""
        restore_cause(self._run_outcome.cause)
        return self._run_outcome.cause

    def shutdown(self, timeout: float | None = None) -> None:
        """Lets every worker shut down, and ends the ranks. Any thread; more than once does nothing.

        `timeout`: how many seconds workers may take, instead of `config.shutdown_timeout_s`; after a
        failure they have at most one. ConfigError if it is no such number.

        A Ctrl-C or SIGTERM that comes meanwhile is handled afterwards. If it interrupted the shutdown, some
        ranks might not be told to end, and nobody would wait for them. An engine that is dropped without a
        shutdown ends its ranks too, with a ResourceWarning.

        When the ranks have ended, this waits until the callbacks of all futures have been called, for up to
        two seconds.
        """
        deadline_after(timeout)  # ConfigError if it is no number
        if timeout is not None and not 0 <= timeout < math.inf:
            raise ConfigError(f"timeout={timeout!r}: must be a number of seconds, 0 or more")
        self._ending.shutdown(timeout)
        self._dropped.detach()

    def __enter__(self) -> Engine:
        return self

    def note_exception(self, error: BaseException | None) -> None:
        """Call it before `shutdown` where an exception ends the program: then over several nodes the other
        nodes' commands fail as well. A `with` block does it. None, and exit code 0, change nothing."""
        if not self._ending.has_begun and self._ranks.remote is not None:
            self._ranks.remote.note_exception(error)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """After an exception workers have a second: they may still run a call that nobody waits for."""
        self.note_exception(error)
        limit = self._config.shutdown_timeout_s
        self.shutdown(limit if kind is None else min(limit, _AFTER_AN_EXCEPTION_S))

    def __repr__(self) -> str:
        if self._ending.has_begun:
            state = "shut down"
        elif (cause := self._run_outcome.cause) is not None:
            state = f"failed: {type(cause).__name__}"
        else:
            state = f"running, pids {self.pids}"
        return f"<Engine: world_size {self._world_size}, {state}>"
