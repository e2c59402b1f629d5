"""Engine: the one process that decides what all ranks do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from multiprocessing import util as multiprocessing_util
from typing import Any

from mpspmd.codec.steps import StepCodec
from mpspmd.config import RuntimeConfig
from mpspmd.control.plane import EnginePlane
from mpspmd.engine.call import Call
from mpspmd.engine.calls import Calls
from mpspmd.engine.core_count import CoreCount
from mpspmd.engine.failures import Failures
from mpspmd.engine.inherited import Inherited, end_with_fork
from mpspmd.engine.ranks import Ranks
from mpspmd.engine.replies import Replies
from mpspmd.engine.sender import Sender
from mpspmd.engine.stall import StallWatch
from mpspmd.engine.supervisor import Supervisor
from mpspmd.errors import ConfigError, EngineClosed, StepTimeout
from mpspmd.exceptions.fault import restore_cause
from mpspmd.machine.green_threads import refuse_green_threads
from mpspmd.machine.room import check_room
from mpspmd.observe.stats import EngineStats, RankStats, read_stats
from mpspmd.processes.launch import refuse_an_engine_on_a_rank
from mpspmd.processes.main_module import main_to_import, refuse_while_main_is_imported
from mpspmd.processes.signals import signals_deferred
from mpspmd.processes.spawn import AroundStart, StartRanks, start_ranks
from mpspmd.transport.channel import ChannelSegments, EngineChannel
from mpspmd.transport.descriptor import open_standard_descriptors


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
    ) -> None:
        """Returns when every rank's worker is made.

        `worker(ctx, *args, **kwargs)` makes the worker on each rank; it and its arguments are pickled.
        `around_start(rank)` is a context manager for the start of that rank's process, for example to set
        its environment. `remove_at_end` are files (paths or shell patterns) that ranks may make: they are
        removed when the last of the run's processes is gone, also if all of them are killed. When one of
        `fatal_methods` fails on any rank, the engine has failed: what the ranks hold may differ from then
        on. `on_cause` is told why, before any caller is. `step_codec` sends the requests and replies that
        it knows as deltas, unless `config.step_deltas` is off. `start` starts the ranks' processes; they
        are spawned, unless told otherwise.

        ConfigError, SegmentError, WorkerNotPicklable, StartupError; then nothing is left behind.
        """
        open_standard_descriptors()
        refuse_an_engine_on_a_rank()
        refuse_while_main_is_imported()
        refuse_green_threads()
        super().__init__()
        self._config = config or RuntimeConfig.from_env()
        if not isinstance(world_size, int):
            raise ConfigError(f"world_size={world_size!r}: must be a whole number of ranks")
        self._world_size = world_size
        self._closing = threading.Lock()
        self._closed = False
        self._ranks = Ranks(world_size, self._config)
        step_codec = step_codec if self._config.step_deltas else None
        step_end = step_codec.engine_end() if step_codec else None
        self._segments = ChannelSegments.create(world_size, self._config)
        try:
            check_room(world_size)
            self._channel = EngineChannel(self._segments)
        except BaseException:
            self._segments.close()
            raise
        ranks = self._ranks
        self._failures = Failures(
            self._channel,
            lambda: ranks.pids,
            ranks.wake,
            ranks.end_survivors,
            fatal_methods,
            on_cause,
        )
        self._replies = Replies(
            self._channel.replies,
            self._let_sender_read,
            self._reply_timeout,
            self._failures.add_error,
            step_end,
        )
        self._failures.attach(self._replies)
        self._sending = Sender(
            self._channel,
            self._replies,
            self._failures,
            self._timeout,
            world_size,
            step_end,
            by_value=start is start_ranks and not main_to_import(worker),
        )
        self._stalls = StallWatch(
            self._config.stall_warn_s, self._channel, self._replies, ranks.stacks, ranks.usage
        )
        end_with_fork(self)
        # At exit, before multiprocessing joins its children.
        self._finalizer = multiprocessing_util.Finalize(None, self.shutdown, exitpriority=100)
        try:
            self._ranks.start(
                self._segments,
                self._make_supervisor,
                worker,
                args,
                kwargs or {},
                around_start,
                remove_at_end,
                start,
                step_codec,
            )
        except BaseException:
            self.shutdown()
            raise

    def become_inherited(self, stub: Inherited) -> None:
        """In a process that has just been forked: the engine stays its parent's."""
        self._ranks.close_copies()
        names = ("_ranks", "_channel", "_failures", "_replies", "_sending", "_stalls")
        # Kept: the end of such a part would be the end of what belongs to the parent.
        self._of_parent = [getattr(self, name) for name in names]
        for name in names:
            setattr(self, name, stub)
        self._closing = threading.Lock()  # a thread of the parent may hold the old one
        self._closed = True

    # What a user calls.

    @property
    def world_size(self) -> int:
        return self._world_size

    @property
    def pids(self) -> list[int]:
        """The ranks' process ids, in rank order."""
        return self._ranks.pids

    @property
    def config(self) -> RuntimeConfig:
        return self._config

    @property
    def late_replies(self) -> int:
        """Replies that came after their call had timed out or failed, and were dropped."""
        return self._replies.late

    @property
    def segment_bytes(self) -> int:
        """Bytes of shared memory that all rings and the status page take."""
        return self._segments.size

    def stats(self) -> EngineStats:
        """What engine and ranks are doing, and what they have counted. Any thread; asks nobody."""
        ring = self._channel.request_ring
        return read_stats(self._channel.status, ring.capacity, ring.tail, ring.heads)

    @property
    def ranks(self) -> tuple[RankStats, ...]:
        """What each rank is doing, in rank order: `stats().ranks`."""
        return self.stats().ranks

    def on_failure(self, callback: Callable[[], None]) -> None:
        """Calls back once, from another thread, when the engine has failed; now, if it has already."""
        self._failures.on_failure(callback)

    @property
    def failure(self) -> BaseException | None:
        """Why the engine can't be used any more, if it can't."""
        restore_cause(self._failures.cause)
        return self._failures.cause

    def shutdown(self) -> None:
        """Lets every worker shut down, and ends the ranks. Any thread; more than once does nothing.

        A Ctrl-C or SIGTERM that comes meanwhile is taken afterwards: in the middle it would leave ranks
        that nobody waits for, or has told to leave.
        """
        with self._closing, signals_deferred():
            if self._closed:
                return
            self._closed = True
            if self._ranks.any_gone:
                self._failures.wait_until_known()
            failed = self._failures.cause is not None
            self._ranks.expect_end()
            self._channel.expect_deaths()
            self._failures.fail(EngineClosed("the engine has been shut down"), None)
            self._failures.wait_for_reaper()
            # First: removing a folder takes a descriptor, and there may be none left.
            self._segments.close()
            try:
                self._ranks.stop(after_a_death=failed)
            finally:
                self._channel.release()
                self._send_no_more()
                self._finalizer.cancel()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *exception: object) -> None:
        self.shutdown()

    def _let_sender_read(self) -> None:
        """Somebody waits for space, and counted on the thread that has just stopped reading."""
        self._channel.requests.interrupt()

    def _reply_timeout(self, call: Call) -> Exception:
        error = self._failures.held_error(call)
        return error or self._timeout(call, "not every awaited rank has replied")

    def _timeout(self, call: Call, what: str) -> StepTimeout:
        report = self._stalls.report(call)
        return StepTimeout(
            f"{call.method} (step {call.step}) timed out: {what}\n{report}", report=report
        )

    def _make_supervisor(self, plane: EnginePlane) -> Supervisor:
        failures, cores = self._failures, CoreCount(self._channel.status)
        ticks = [failures.tick, self._stalls.tick, cores.tick]
        return Supervisor(plane, self._channel, failures.on_fault, failures.on_death, ticks)
