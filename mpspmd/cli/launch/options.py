"""The options of mpspmd-launch: torchrun's, from the installed PyTorch, and a few of our own.

Importing this module imports torch, which takes seconds: torchrun's parser can't be had without it.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence

from torch.distributed.argparse_util import check_env
from torch.distributed.elastic.events.handlers import get_logging_handler
from torch.distributed.elastic.multiprocessing import Std
from torch.distributed.run import get_args_parser, parse_min_max_nnodes

from mpspmd import __version__
from mpspmd.cli.parser import Parser
from mpspmd.errors import ConfigError
from mpspmd.nodes.schedulers import place_from_environment

_USAGE = "mpspmd-launch [OPTIONS] SCRIPT [ARGUMENTS]"

_DESCRIPTION = """\
Starts SCRIPT as one engine and N ranks; the call of mpspmd.run in SCRIPT makes each process the engine or a
rank. For a run over several nodes, start mpspmd-launch on each of them: node 0 has the engine, and every
node has N ranks. Slurm and LeaderWorkerSet tell it which nodes there are.

The options are torchrun's and do the same; each can also be given as a variable: PET_NPROC_PER_NODE for
--nproc-per-node. Our own are -n, --ranks-only, --env and --version. The ranks' lines begin with their rank;
the engine has the terminal. The exit code is that of the process that failed first.
"""

_EXAMPLES = """\
Examples, from the project's folder:

  mpspmd-launch -n 2 examples/hello.py
  mpspmd-launch -n 2 --env OMP_NUM_THREADS=1 examples/generate.py "Who are you?"
  mpspmd-launch -n 2 --ranks-only -m my_training --lr 0.1
  mpspmd-launch -n 4 --nnodes 2 --rdzv-backend c10d --rdzv-endpoint host:29400 examples/hello.py
"""

_TOPICS = {
    "Processes": (
        "help", "version", "nproc_per_node", "ranks_only", "module", "no_python", "run_path", "env", "role",
        "start_method", "virtual_local_rank", "numa_binding",
    ),
    "Failures and signals": (
        "max_restarts", "monitor_interval", "signals_to_handle", "shutdown_timeout",
    ),
    "Output": (
        "log_dir", "redirects", "tee", "local_ranks_filter", "duplicate_stdout_filters",
        "duplicate_stderr_filters", "logs_specs", "event_log_handler",
    ),
    "More than one node": (
        "nnodes", "node_rank", "master_addr", "master_port", "local_addr", "rdzv_backend",
        "rdzv_endpoint", "rdzv_id", "rdzv_conf", "standalone",
    ),
}  # fmt: skip
_OTHER_TOPIC = "More of torchrun's options"
"""Options that a later PyTorch may add."""

_PLACE = ("nnodes", "node_rank", "master_addr", "rdzv_backend", "rdzv_endpoint", "standalone")
"""The options that say where this node is."""

_DAY_S = 86400

_ONLY_WITHOUT_ENGINE = {
    "virtual_local_rank": "with an engine ctx.device is the GPU of the rank's number",
    "numa_binding": "PyTorch binds every process to the GPU of its place, and the engine has none",
}


class _Help(argparse.RawDescriptionHelpFormatter):
    """Shows each option once: torchrun's have a second name, with underscores, which is left out."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        names = ", ".join(name for name in action.option_strings if "_" not in name)
        if not names or action.nargs == 0:
            return names or super()._format_action_invocation(action)
        return f"{names} {self._format_args(action, action.dest.upper())}"


def make_parser() -> argparse.ArgumentParser:
    """ValueError when a PET_* variable can't be read."""
    parser = Parser(
        "mpspmd-launch",
        usage=_USAGE,
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        parents=[get_args_parser()],
        formatter_class=_Help,
        add_help=False,  # the parent has --help
    )
    parser.add_argument(
        "-n", dest="nproc_per_node", default=argparse.SUPPRESS, help="Short for --nproc-per-node."
    )
    parser.add_argument(
        "--version",
        action="version",
        version=f"mpspmd {__version__}",
        help="Print the version, and end.",
    )
    parser.add_argument(
        "--ranks-only",
        "--ranks_only",
        action=check_env,
        help="No engine: a plain SPMD program, such as any script for torchrun.",
    )
    parser.add_argument(
        "--env",
        action="append",
        type=_variable,
        metavar="K=V",
        default=[],
        help="A variable for all; may be repeated.",
    )
    _sort_by_topic(parser)
    return parser


def _variable(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z_]\w*=.*", text, re.DOTALL):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return text


def _sort_by_topic(parser: argparse.ArgumentParser) -> None:
    """Groups the options in --help. argparse has no public way to move an option to another group."""
    unsorted = parser._optionals
    unsorted.title = _OTHER_TOPIC
    for title, names in _TOPICS.items():
        group = parser.add_argument_group(title)
        for action in [each for each in unsorted._group_actions if each.dest in names]:
            unsorted._group_actions.remove(action)
            group._group_actions.append(action)
        group._group_actions.sort(key=lambda action: names.index(action.dest))
    parser._action_groups.append(parser._action_groups.pop(parser._action_groups.index(unsorted)))
    for action in parser._positionals._group_actions:
        # They are in the usage line already.
        action.help = argparse.SUPPRESS
        action.metavar = "SCRIPT" if action.nargs is None else "ARGUMENTS"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """SystemExit after --help; with code 2, after a line that says what is wrong, for bad options."""
    try:
        parser = make_parser()
    except ValueError as error:
        Parser("mpspmd-launch").error(f"a variable PET_…: {error}")
    args = parser.parse_args(arguments)
    try:
        _take_scheduled_place(args, parser)
    except ConfigError as error:
        parser.error(str(error))
    if reason := _refusal(args):
        parser.error(reason)
    return args


def _take_scheduled_place(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Where neither options nor PET_* variables speak of nodes, a scheduler may. ConfigError."""
    for name in _PLACE:
        if f"PET_{name.upper()}" in os.environ or getattr(args, name) != parser.get_default(name):
            return
    place = place_from_environment(os.environ)
    if place is not None:
        args.nnodes, args.node_rank = str(place.num_nodes), place.node_rank
        args.master_addr = place.head


def _refusal(args: argparse.Namespace) -> str | None:
    """What is wrong with the values, or None. torchrun would fail later, or without naming the option."""
    count = args.nproc_per_node
    if re.fullmatch(r"[-+]?\d+", count) and int(count) < 1:
        return f"--nproc-per-node {count!r} is not a number from 1 on, auto, gpu or cpu"
    try:
        least, most = parse_min_max_nnodes(args.nnodes)
    except (ValueError, RuntimeError):
        least, most = 0, 0
    if not 1 <= least <= most:
        return f"--nnodes {args.nnodes!r} is not a number from 1 on, or MIN:MAX"
    if args.max_restarts < 0:
        return f"--max-restarts {args.max_restarts} is not a number from 0 on"
    if not 0 < args.monitor_interval <= _DAY_S:
        seconds = f"a number of seconds above 0 and up to {_DAY_S}"
        return f"--monitor-interval {args.monitor_interval:g} is not {seconds}"
    try:
        get_logging_handler(args.event_log_handler)
    except KeyError:
        return f"--event-log-handler {args.event_log_handler!r} is none that PyTorch knows, such as null"
    for name in ("redirects", "tee"):
        try:
            Std.from_str(getattr(args, name))
        except ValueError:
            return (
                f"--{name} {getattr(args, name)!r} is not 0 (nothing), 1 (stdout), 2 (stderr), 3 (both) "
                "or RANK:NUMBER,…"
            )
    for name, reason in _ONLY_WITHOUT_ENGINE.items():
        if getattr(args, name) and not args.ranks_only:
            return f"--{name.replace('_', '-')} needs --ranks-only: {reason}"
    return None
