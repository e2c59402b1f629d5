"""Runs a Group: PyTorch's elastic agent starts and watches its processes."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import sys
from pathlib import Path

from torch.distributed import DistError
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import RendezvousError
from torch.distributed.launcher.api import elastic_launch

from mpspmd.cli.command import tell
from mpspmd.cli.launch.failure import Failure, first_failure, summary
from mpspmd.cli.launch.group import Group, number_of_ranks, plan
from mpspmd.cli.launch.output import Output
from mpspmd.cli.launch.process_setup import ProcessSetup, engine_socket
from mpspmd.cli.launch.rendezvous import Backend, ask_no_name_service
from mpspmd.cli.launch.signals import Stopped, signals_named, stopping_at_signals
from mpspmd.config import RuntimeConfig
from mpspmd.control.plane import check_socket_path
from mpspmd.errors import ConfigError
from mpspmd.machine.network import NO_LOOPBACK, loopback, unreachable
from mpspmd.machine.room import check_room_of_launcher
from mpspmd.processes.janitor import Janitor
from mpspmd.processes.run_dir import RunDir, known_places

_READERS_PATIENCE_S = 2.0
"""After a signal has ended the run: how long the reader of our output may pause before we give up."""


def launch_group(args: argparse.Namespace) -> int:
    """Runs the group that the options ask for, prints a summary if it fails, and returns the exit code.

    ConfigError for options that can't work here, SegmentError when the machine lacks the resources.
    """
    n_ranks = number_of_ranks(args)
    check_room_of_launcher(n_ranks, has_engine=not args.ranks_only)
    parent = RuntimeConfig.from_env().runtime_dir
    janitor = Janitor(known_places(parent))
    run_dir = RunDir(parent, janitor.remove_at_end)
    folder = run_dir.path
    _quiet_the_agent()
    try:
        group = plan(args, n_ranks, folder)
        check_socket_path(engine_socket(folder, group.config.max_restarts))
        return _run_and_tell(group, folder)
    finally:
        run_dir.remove()
        janitor.close()


def _run_and_tell(group: Group, folder: Path) -> int:
    if group.meeting_host is not None and (reason := unreachable(group.meeting_host)):
        tell(f"mpspmd-launch: the nodes can't meet: {reason}")
        return 1
    try:
        failures = run_group(group, folder)
    except Stopped as stopped:
        return 128 + stopped.number
    except (RendezvousError, DistError) as error:
        tell(f"mpspmd-launch: the nodes haven't met: {_first_line(error)}")
        return 1
    if not failures:
        return 0
    tell(summary(group.program, failures))
    if group.config.rdzv_backend == Backend.ONE_NODE and loopback() is None:
        tell(f"mpspmd-launch: {NO_LOOPBACK}")
    return first_failure(failures).status


def _first_line(error: BaseException) -> str:
    """The message without the C++ frames that follow it; a message may refer to its cause, so that too."""
    text = str(error).partition("\n")[0]
    if error.__cause__ is not None:
        text += f" ({_first_line(error.__cause__)})"
    return text


def _quiet_the_agent() -> None:
    """Silences the agent's own log, which would repeat our summary, unless its variable LOGLEVEL is set."""
    if "LOGLEVEL" not in os.environ:
        for name in list(logging.root.manager.loggerDict):
            if name.startswith("torch.distributed.elastic"):
                logging.getLogger(name).setLevel(logging.CRITICAL)


def run_group(group: Group, folder: Path) -> dict[int, Failure]:
    """Runs all processes to their end. Returns the failures by rank; the engine's is under ENGINE.

    `folder` gets pipes, sockets and files; the caller removes it. Stopped when a signal ended the run,
    RendezvousError and DistError when the nodes didn't meet, ConfigError when the rendezvous backend
    refuses its options. Main thread only.
    """
    output = Output(folder)
    setup = ProcessSetup(group, folder, output)
    command = group.command
    if group.has_engine:
        command = (sys.executable, "-m", "mpspmd.cli.launch.bootstrap", *command)
    if group.config.rdzv_backend == Backend.ONE_NODE:
        ask_no_name_service()
    config = dataclasses.replace(
        group.config,
        nproc_per_node=group.n_ranks + group.has_engine,
        logs_specs=setup,
        # signals.py handles signals, and output.py filters lines.
        signals_to_handle="",
        duplicate_stdout_filters=None,
        duplicate_stderr_filters=None,
    )
    try:
        with stopping_at_signals(
            signals_named(group.config.signals_to_handle), group.has_engine, group.patience_s
        ):
            elastic_launch(config, command[0])(*command[1:])
    except Stopped:
        output.close(_READERS_PATIENCE_S)
        raise
    except (ImportError, OSError, ValueError) as error:
        if setup.has_started:
            raise
        # From a rendezvous backend, about its options, or because of the folder for the log files.
        raise ConfigError(str(error)) from error
    except ChildFailedError as error:
        failures = [setup.failure(rank, each) for rank, each in error.failures.items()]
        return {failure.rank: failure for failure in failures}
    finally:
        output.close()
    return {}
