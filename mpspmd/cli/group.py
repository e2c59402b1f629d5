"""Group: the processes of a launched run, started and watched by PyTorch's elastic agent."""

from __future__ import annotations

import logging
import os
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import RendezvousError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from mpspmd.cli.failure import Failure, first_failure, summary
from mpspmd.cli.members import Destinations, Members, engine_socket
from mpspmd.cli.output import Output
from mpspmd.cli.stopping import Stopped, stopping_at_signals
from mpspmd.config import RuntimeConfig
from mpspmd.control.plane import check_socket_path
from mpspmd.runtime.janitor import Janitor
from mpspmd.runtime.run_dir import RunDir, known_places


@dataclass(frozen=True)
class Nodes:
    """Where this node stands among all: torchrun's options of these names."""

    least: int = 1
    most: int = 1
    rank: int = 0
    backend: str = "static"
    endpoint: str = ""
    run_id: str = "none"
    local_addr: str | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """What the rendezvous needs to know beyond the endpoint."""
        if self.backend == "static":
            return {"rank": self.rank}
        if self.local_addr is None:
            return {}  # it finds out by itself whether the endpoint is this machine
        return {"is_host": self.endpoint.rpartition(":")[0] == self.local_addr}


@dataclass(frozen=True)
class Group:
    """What to run, and how often."""

    program: str
    """What people call it."""
    command: tuple[str, ...]
    n_ranks: int
    """On this node."""
    has_engine: bool
    nodes: Nodes = field(default_factory=Nodes)
    env: Mapping[str, str] = field(default_factory=dict)
    max_restarts: int = 0
    monitor_interval_s: float = 0.1


class GroupFailed(Exception):
    """All failures, by rank; the engine's under ENGINE."""

    def __init__(self, failures: dict[int, Failure]) -> None:
        super().__init__(failures)
        self.failures = failures


def launch_group(group: Group, destinations: Destinations) -> int:
    """Runs a group to its end and says how that was, if it wasn't well. The exit code.

    ConfigError, SegmentError.
    """
    parent = RuntimeConfig.from_env().runtime_dir
    janitor = Janitor(known_places(parent))
    run_dir = RunDir(parent, janitor.remove_at_end)
    folder = run_dir.path
    _quiet_the_agent()
    try:
        check_socket_path(engine_socket(folder, group.max_restarts))
        run_group(group, destinations, folder)
    except GroupFailed as failed:
        print(summary(group.program, failed.failures), file=sys.stderr)
        if group.has_engine and any(folder.glob("engine-*")):
            print(
                f"mpspmd-launch: {group.program} has not called mpspmd.run(); for a program without an "
                "engine give --ranks-only",
                file=sys.stderr,
            )
        return first_failure(failed.failures).status
    except Stopped as stopped:
        return 128 + stopped.number
    except RendezvousError as error:
        print(f"mpspmd-launch: the nodes haven't met: {error}", file=sys.stderr)
        return 1
    finally:
        run_dir.remove()
        janitor.close()
    return 0


def _quiet_the_agent() -> None:
    """What fails is told in our summary; its own words would be the same again."""
    if "LOGLEVEL" not in os.environ:  # the agent's variable: somebody wants to hear it
        for name in list(logging.root.manager.loggerDict):
            if name.startswith("torch.distributed.elastic"):
                logging.getLogger(name).setLevel(logging.CRITICAL)


def run_group(group: Group, destinations: Destinations, folder: Path) -> None:
    """Returns when all processes have ended well. `folder` is for pipes and files; the caller removes it.

    GroupFailed; Stopped when a signal has ended it all. Main thread only.
    """
    output = Output(folder)
    members = Members(group.n_ranks, group.has_engine, group.env, destinations, folder, output)
    command = group.command
    if group.has_engine:
        command = (sys.executable, "-m", "mpspmd.cli.member", *command)
    try:
        with stopping_at_signals(group.has_engine):
            elastic_launch(_launch_config(group, members), command[0])(*command[1:])
    except ChildFailedError as error:
        failures = [members.failure(rank, each) for rank, each in error.failures.items()]
        raise GroupFailed({failure.rank: failure for failure in failures}) from None
    finally:
        output.close()


def _launch_config(group: Group, members: Members) -> LaunchConfig:
    nodes = group.nodes
    if nodes.most == 1 and not nodes.endpoint:
        # A port that the system chooses: no two runs can want the same.
        nodes = Nodes(
            backend="c10d",
            endpoint="localhost:0",
            run_id=str(uuid.uuid4()),
            local_addr=nodes.local_addr or "localhost",
        )
    return LaunchConfig(
        min_nodes=nodes.least,
        max_nodes=nodes.most,
        nproc_per_node=group.n_ranks + group.has_engine,
        run_id=nodes.run_id,
        role="default",
        rdzv_endpoint=nodes.endpoint,
        rdzv_backend=nodes.backend,
        rdzv_configs=nodes.settings,
        max_restarts=group.max_restarts,
        monitor_interval=group.monitor_interval_s,
        local_addr=nodes.local_addr,
        logs_specs=members,
        # Those that end a run by hand are handled by stopping.py.
        signals_to_handle="SIGQUIT",
    )
