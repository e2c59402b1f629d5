"""The main function of a rank's process. All ranks run the same, rank 0 too."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import signal
from typing import Any

from msgspec.structs import replace

from mpspmd import log
from mpspmd._ring import PHASE_LOADING
from mpspmd.control.messages import Exiting, Hello, Ready
from mpspmd.control.plane import control_address
from mpspmd.errors import ConfigError, text_of
from mpspmd.exceptions.fault import Fault, exit_code, fault_of, reason_of
from mpspmd.exceptions.foreign import Terminated, logged
from mpspmd.machine.green_threads import refuse_green_threads
from mpspmd.machine.room import check_room_on_rank
from mpspmd.notice import notice
from mpspmd.processes.hash_seed import forget
from mpspmd.processes.main_module import UnguardedMain, import_main
from mpspmd.processes.quick_exit import exit_quickly
from mpspmd.processes.start import RankStart
from mpspmd.rank.attached_memory import untrack_attached_memory
from mpspmd.rank.control import ControlThread
from mpspmd.rank.loop import RankLoop
from mpspmd.rank.signals import RankSignals
from mpspmd.rank.worker import RankContext
from mpspmd.transport.channel import RankChannel
from mpspmd.transport.descriptor import open_standard_descriptors

logger = logging.getLogger(__name__)


def serve(start: RankStart) -> None:
    """Makes the worker, runs the loop, and ends the process. Doesn't return."""
    code = 1
    open_standard_descriptors()
    if start.begins_lines:
        log.begin_lines_with(f"[rank{start.rank}] ")
    try:
        signals = RankSignals(start.signals_of_engine)
        log.set_level()
        forget(start.hash_seed)
        untrack_attached_memory()
        code = _run(start, signals)
    except Terminated:
        code = -signal.SIGTERM
    except SystemExit as end:
        # The worker or the script has raised it.
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
    channel = RankChannel(start.segments, start.local_rank)
    start.segments.close()
    signals.unblock(channel)
    control.send(Hello(start.rank))
    start.death_pipe.disarm()
    ctx = RankContext(
        rank=start.rank,
        local_rank=start.local_rank,
        world_size=start.world_size,
        node_rank=start.node_rank,
        num_nodes=start.num_nodes,
        run_dir=str(start.run_dir),
        remove_at_end=start.janitor.remove_at_end,
        meeting_place=start.meeting_place,
        _digest=hashlib.blake2b(digest_size=16) if start.digest_requests else None,
        _track=channel.track,
    )
    try:
        worker = _make_worker(start, ctx, signals, channel)
    except Terminated:
        raise
    except BaseException as error:
        # The engine sends SIGTERM when it knows of the failure, and this process exits anyway.
        signals.ignore_sigterm()
        if start.report_start_failure is not None:
            start.report_start_failure(error)
        control.send(_start_fault(error, start.rank))
        control.close()
        if isinstance(error, SystemExit):
            raise
        return 1
    # The arguments may hold much memory, and the worker may not need them any longer.
    start.args, start.kwargs = (), {}
    steps = start.step_codec.rank_end() if start.step_codec is not None else None
    loop = RankLoop(ctx, worker, channel, control.send, steps)
    control.on_shutdown(loop.stop)
    signals.on_sigterm(loop.stop)
    control.send(Ready(start.rank))
    try:
        loop.run()
    except BaseException as end:
        # Tell the engine now: the worker's shutdown may take long.
        control.send(Exiting(start.rank, reason_of(end)))
        raise
    finally:
        # A second SIGTERM must not cut the worker's shutdown short.
        signals.ignore_sigterm()
        try:
            with logged("the worker's shutdown"):
                if (shutdown := getattr(worker, "shutdown", None)) is not None:
                    shutdown()
        finally:
            control.close()
    return 0


def _make_worker(
    start: RankStart, ctx: RankContext, signals: RankSignals, channel: RankChannel
) -> Any:
    """Raises whatever the user's code raises."""
    if start.main:
        import_main(start.main)
        # The script may set signal handlers, which are meant for the process that the user has started.
        signals.install_handlers()
    start.unpack()
    channel.line.enter(PHASE_LOADING, 0, b"__init__")
    worker = start.worker(ctx, *start.args, **start.kwargs)
    if signals.terminated:
        raise Terminated
    return worker


def _start_fault(error: BaseException, rank: int) -> Fault:
    fault = fault_of(error, rank, 0, "__init__")
    if isinstance(error, UnguardedMain):
        # The traceback of the engine's error shows the same line.
        return replace(fault, exception=ConfigError.__name__, traceback="")
    if isinstance(error, SystemExit):
        return replace(fault, message=reason_of(error))
    return fault
