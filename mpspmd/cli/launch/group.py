"""Group: the processes of a run on this node, as the options ask for them."""

from __future__ import annotations

import argparse
import os
import socket
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch.distributed.elastic.multiprocessing import LogsSpecs
from torch.distributed.elastic.rendezvous.utils import parse_rendezvous_endpoint
from torch.distributed.launcher.api import LaunchConfig
from torch.distributed.run import config_from_args, determine_local_world_size, parse_min_max_nnodes

from mpspmd.cli.launch.rendezvous import Backend
from mpspmd.errors import ConfigError

_RUN_PATH = "import runpy, sys; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
_SHUTDOWN_VARIABLE = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"


@dataclass(frozen=True)
class Group:
    """The processes to start, and the configuration of PyTorch's agent for them."""

    program: str
    """The script or module as the user named it, for messages."""
    command: tuple[str, ...]
    n_ranks: int
    has_engine: bool
    env: Mapping[str, str]
    config: LaunchConfig
    """PyTorch's, as if there were no engine."""
    patience_s: float | None
    """How long an engine may take to stop after a signal; None: as long as it needs."""
    meeting_host: str | None = None
    """The host where the nodes meet; None if they don't, or if only the rendezvous backend knows it."""
    port: int = 0
    """The port of node 0 at which the engine of a run over several nodes listens."""

    @property
    def logs_specs(self) -> LogsSpecs:
        assert self.config.logs_specs is not None
        return self.config.logs_specs


def number_of_ranks(args: argparse.Namespace) -> int:
    """How many ranks the options ask for on this node.

    ConfigError when --nproc-per-node gives no number on this machine.
    """
    try:
        return int(determine_local_world_size(args.nproc_per_node))
    except ValueError as error:
        raise ConfigError(
            f"--nproc-per-node {args.nproc_per_node!r} is not a number from 1 on, auto, gpu or cpu here: "
            f"{error}"
        ) from error


def plan(args: argparse.Namespace, n_ranks: int, folder: Path) -> Group:
    """The group that the options ask for. Without --log-dir, log files go into `folder`.

    ConfigError when PyTorch refuses a value.
    """
    has_engine = not args.ranks_only
    try:
        config, program, arguments = config_from_args(_for_torch(args, n_ranks, folder))
        backend = config.rdzv_backend
        host, port = "", 0
        if backend != Backend.ONE_NODE:
            host, port = parse_rendezvous_endpoint(config.rdzv_endpoint, default_port=29400)
        if backend == Backend.C10D and host == config.local_addr and _can_serve(host, port):
            # PyTorch compares host names, which may differ. Another launcher on this machine may be the
            # host already: then its port is taken.
            config.rdzv_configs.setdefault("is_host", True)
    except (AssertionError, ImportError, OSError, RuntimeError, ValueError) as error:
        raise ConfigError(str(error)) from error
    if callable(program):
        # --run-path: PyTorch would call this function in a process started by multiprocessing.
        program, arguments = sys.executable, ["-u", "-c", _RUN_PATH, *arguments]
    over_tcp = config.rdzv_configs.get("store_type", "tcp") == "tcp"
    knows_host = backend == Backend.STATIC or (backend == Backend.C10D and over_tcp)
    limited = args.shutdown_timeout is not None or _SHUTDOWN_VARIABLE in os.environ
    return Group(
        program=args.training_script,
        command=(program, *arguments),
        n_ranks=n_ranks,
        has_engine=has_engine,
        env=dict(variable.split("=", 1) for variable in args.env),
        config=config,
        patience_s=config.shutdown_timeout if limited else None,
        meeting_host=host if knows_host else None,
        port=0 if backend == Backend.ONE_NODE else port + 1,
    )


def _for_torch(args: argparse.Namespace, n_ranks: int, folder: Path) -> argparse.Namespace:
    """The options with the values that PyTorch must get instead of the user's."""
    changed = argparse.Namespace(**vars(args))
    # With more than 1, PyTorch sets OMP_NUM_THREADS to 1 in this process. `agent.py` sets the real number.
    changed.nproc_per_node = "1"
    changed.log_dir = args.log_dir or str(folder / "logs")
    if args.local_ranks_filter and not args.ranks_only:
        changed.local_ranks_filter += f",{n_ranks}"  # the engine is always shown
    _, nodes = parse_min_max_nnodes(args.nnodes)
    meets_nobody = (
        args.rdzv_backend == Backend.STATIC
        and not args.rdzv_endpoint
        and args.master_port is None
        and nodes == 1
    )
    if args.standalone or meets_nobody:
        # torchrun uses a c10d rendezvous at "localhost:0", which needs a network and a name service.
        changed.rdzv_backend, changed.rdzv_endpoint = Backend.ONE_NODE, "this process"
        changed.rdzv_id = str(uuid.uuid4())
    if args.master_port is None:
        changed.master_port = 29500
    return changed


def _can_serve(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError:
        return False
    return True
