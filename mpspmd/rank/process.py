"""What a rank's process does from its start to its end; rank 0's too."""

from __future__ import annotations

import contextlib
import logging
import signal
from typing import Any

from msgspec.structs import replace

from mpspmd import log
from mpspmd.control.messages import Exiting, Hello, Ready
from mpspmd.control.plane import control_address
from mpspmd.errors import ConfigError, text_of
from mpspmd.exceptions.fault import exit_code, fault_of, reason_of
from mpspmd.exceptions.foreign import Terminated, logged
from mpspmd.machine.green_threads import refuse_green_threads
from mpspmd.machine.room import check_room_on_rank
from mpspmd.notice import notice
from mpspmd.processes.hash_seed import forget
from mpspmd.processes.main_module import UnguardedMain
from mpspmd.processes.quick_exit import exit_quickly
from mpspmd.processes.start import RankStart
from mpspmd.rank.attaching import leave_what_is_attached
from mpspmd.rank.control import ControlThread
from mpspmd.rank.loop import RankLoop
from mpspmd.rank.signals import RankSignals
from mpspmd.rank.worker import RankContext
from mpspmd.transport.channel import RankChannel
from mpspmd.transport.descriptor import open_standard_descriptors

logger = logging.getLogger(__name__)

START_METHOD = "__init__"
"""What a fault names as its method when a worker can't be made."""


def serve(start: RankStart) -> None:
    """The main function of a rank's process. Doesn't return."""
    code = 1
    open_standard_descriptors()
    if start.begins_lines:
        log.begin_lines_with(f"[rank{start.rank}] ")
    try:
        signals = RankSignals(start.signals_of_engine)
        log.set_level()
        forget(start.hash_seed)
        leave_what_is_attached()
        code = _run(start, signals)
    except Terminated:
        code = -signal.SIGTERM
    except SystemExit as end:
        # The worker's own.
        code = exit_code(end)
    except BaseException as error:
        with contextlib.suppress(OSError):
            start.stack_file.write(f"{type(error).__qualname__}: {text_of(error)}")
        notice(logger.error, "rank %d failed", start.rank, exc_info=error)
    finally:
        exit_quickly(code)


def _run(start: RankStart, signals: RankSignals) -> int:
    start.stack_file.install_handler()
    check_room_on_rank(start.rank)
    refuse_green_threads()
    control = ControlThread(control_address(start.run_dir), start.rank)
    channel = RankChannel(start.segments, start.rank)
    start.segments.close()
    signals.take(channel)
    control.send(Hello(start.rank))
    start.death_pipe.disarm()
    ctx = RankContext(
        rank=start.rank,
        local_rank=start.rank,
        world_size=start.world_size,
        node_rank=0,
        num_nodes=1,
        run_dir=str(start.run_dir),
        remove_at_end=start.janitor.remove_at_end,
    )
    if start.digest_requests:
        ctx.keep_digest()
    try:
        if start.import_main():
            # A script sets signal handlers for the process that the user has started: not for this one.
            signals.set_handlers()
        start.unpack()
        worker = start.worker(ctx, *start.args, **start.kwargs)
        if signals.has_terminated:
            raise Terminated
    except Terminated:
        raise
    except BaseException as error:
        # The engine sends SIGTERM when it knows of the failure, and this process exits anyway.
        signals.ignore()
        if start.report_start_failure is not None:
            start.report_start_failure(error)
        fault = fault_of(error, start.rank, 0, START_METHOD)
        if isinstance(error, UnguardedMain):
            # The engine's own traceback shows the same line.
            fault = replace(fault, exception=ConfigError.__name__, traceback="")
        elif isinstance(error, SystemExit):
            fault = replace(fault, message=reason_of(error))
        control.send(fault)
        control.close()
        if isinstance(error, SystemExit):
            raise
        return 1
    # Drop what came with the process: a worker may be done with it.
    start.args, start.kwargs = (), {}
    steps = start.step_codec.rank_end() if start.step_codec is not None else None
    loop = RankLoop(start.rank, ctx, worker, channel, control.send, steps)
    control.on_shutdown(loop.leave)
    signals.on_sigterm(loop.leave)
    control.send(Ready(start.rank))
    try:
        loop.run()
    except BaseException as end:
        # The worker's shutdown may take its time; the engine is told before.
        control.send(Exiting(start.rank, reason_of(end)))
        raise
    finally:
        # A second SIGTERM must not cut the worker's shutdown short.
        signals.ignore()
        try:
            _shut_down(worker)
        finally:
            control.close()
    return 0


def _shut_down(worker: Any) -> None:
    with logged("the worker's shutdown"):
        shutdown = getattr(worker, "shutdown", None)
        if shutdown is not None:
            shutdown()
