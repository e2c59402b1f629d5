"""mpspmd-launch: starts a script as engine and as ranks, or a plain SPMD program; feels like torchrun."""

from __future__ import annotations

import re
import sys
from typing import Annotated, Any

import typer

from mpspmd.cli.command import CONTEXT, run_command
from mpspmd.errors import ConfigError, SegmentError
from mpspmd.runtime.leave import leave

_EPILOG = """\
Examples, from the project's folder:

mpspmd-launch -n 2 examples/hello.py

mpspmd-launch -n 2 --env OMP_NUM_THREADS=1 examples/generate.py "Who are you?"

mpspmd-launch -n 2 --ranks-only -m my_training --lr 0.1

mpspmd-launch -n 4 --ranks-only --nnodes 2 --rdzv-backend c10d --rdzv-endpoint host:29400 train.py
"""

app = typer.Typer(add_completion=False, rich_markup_mode="rich")

_STD = re.compile(r"[0-3]|\d:[0-3](,\d:[0-3])*")


def _processes(*names: str, **settings: Any) -> Any:
    return typer.Option(*names, rich_help_panel="Processes", **settings)


def _output(*names: str, **settings: Any) -> Any:
    return typer.Option(*names, rich_help_panel="Output", **settings)


def _nodes(*names: str, **settings: Any) -> Any:
    return typer.Option(*names, rich_help_panel="More than one node", **settings)


def _count(text: str) -> str:
    if text not in ("auto", "gpu", "cpu") and not (text.isdecimal() and int(text) > 0):
        raise typer.BadParameter(f"{text!r} is not a number from 1 on, auto, gpu or cpu")
    return text


def _nnodes(text: str) -> str:
    numbers = text.split(":")
    valid = len(numbers) <= 2 and all(number.isdecimal() for number in numbers)
    if not valid or not 1 <= int(numbers[0]) <= int(numbers[-1]):
        raise typer.BadParameter(f"{text!r} is not a number from 1 on, or MIN:MAX")
    return text


def _std(text: str) -> str:
    if not _STD.fullmatch(text):
        raise typer.BadParameter(
            f"{text!r} is not 0 (nothing), 1 (stdout), 2 (stderr), 3 (both) or RANK:NUMBER,…"
        )
    return text


def _backend(text: str) -> str:
    if text not in ("static", "c10d"):
        raise typer.BadParameter(f"{text!r} is neither static nor c10d")
    return text


def _env(values: list[str] | None) -> list[str]:
    for value in values or []:
        if not re.fullmatch(r"[A-Za-z_]\w*=.*", value, re.DOTALL):
            raise typer.BadParameter(f"{value!r} is not NAME=VALUE")
    return values or []


_Count = Annotated[
    str,
    _processes(
        "--nproc-per-node", "-n", metavar="N", callback=_count,
        help="Ranks: a number; gpu, cpu: as many as there are; auto: gpu, else cpu.",
    ),
]  # fmt: skip
_RanksOnly = Annotated[
    bool,
    _processes(
        "--ranks-only", help="No engine: a plain SPMD program, such as any script for torchrun."
    ),
]
_Module = Annotated[bool, _processes("--module", "-m", help="SCRIPT is a module, as python -m.")]
_NoPython = Annotated[bool, _processes("--no-python", help="SCRIPT is a program.")]
_Env = Annotated[
    list[str] | None,
    _processes("--env", metavar="K=V", callback=_env, help="A variable for all; may be repeated."),
]
_MaxRestarts = Annotated[
    int, _processes("--max-restarts", min=0, help="Starts all again, so often, after a failure.")
]
_Interval = Annotated[
    float,
    _processes(
        "--monitor-interval", min=0.01, metavar="SECONDS", help="How often processes are looked at."
    ),
]
_LogDir = Annotated[
    str | None, _output("--log-dir", metavar="DIR", help="Where the following files go.")
]
_Redirects = Annotated[
    str,
    _output(
        "--redirects", "-r", metavar="STD", callback=_std,
        help="Into files: 1 stdout, 2 stderr, 3 both, or 0:3,1:1 by rank.",
    ),
]  # fmt: skip
_Tee = Annotated[
    str, _output("--tee", "-t", metavar="STD", callback=_std, help="Into files as well.")
]
_Nnodes = Annotated[
    str, _nodes("--nnodes", metavar="N", callback=_nnodes, help="Nodes, or MIN:MAX of them.")
]
_NodeRank = Annotated[int, _nodes("--node-rank", min=0, help="This one's, if static.")]
_Backend = Annotated[str, _nodes("--rdzv-backend", callback=_backend, help="static or c10d.")]
_Endpoint = Annotated[
    str, _nodes("--rdzv-endpoint", metavar="HOST:PORT", help="Where the nodes meet.")
]
_Id = Annotated[str, _nodes("--rdzv-id", help="The same on all nodes of a run.")]
_MasterAddr = Annotated[str, _nodes("--master-addr", help="Node 0's, if static.")]
_MasterPort = Annotated[int, _nodes("--master-port", min=1, max=65535, help="If static.")]
_LocalAddr = Annotated[
    str | None, _nodes("--local-addr", metavar="ADDR", help="How other nodes reach this one.")
]


@app.command(
    context_settings=CONTEXT | {"allow_interspersed_args": False},
    no_args_is_help=True,
    epilog=_EPILOG,
)
def launch(
    script: Annotated[str, typer.Argument(help="A script, a module or a program.")],
    args: Annotated[
        list[str] | None, typer.Argument(help="Its own arguments, as they are.")
    ] = None,
    nproc_per_node: _Count = "1",
    ranks_only: _RanksOnly = False,
    module: _Module = False,
    no_python: _NoPython = False,
    env: _Env = None,
    max_restarts: _MaxRestarts = 0,
    monitor_interval: _Interval = 0.1,
    log_dir: _LogDir = None,
    redirects: _Redirects = "0",
    tee: _Tee = "0",
    nnodes: _Nnodes = "1",
    node_rank: _NodeRank = 0,
    rdzv_backend: _Backend = "static",
    rdzv_endpoint: _Endpoint = "",
    rdzv_id: _Id = "none",
    master_addr: _MasterAddr = "127.0.0.1",
    master_port: _MasterPort = 29500,
    local_addr: _LocalAddr = None,
) -> int:
    """Starts SCRIPT as one engine and N ranks; mpspmd.run in it takes its part from there.

    Options are named as torchrun's. The ranks' lines begin with their rank; the engine has the terminal.
    The exit code is that of the process that failed first.
    """
    if module and no_python:
        raise typer.BadParameter("--module and --no-python exclude each other")
    least, most = (int(number) for number in (nnodes.split(":") * 2)[:2])
    if (most > 1 or rdzv_endpoint) and not ranks_only:
        raise typer.BadParameter(
            "an engine and its ranks are on one machine: more than one node isn't there yet; with "
            "--ranks-only it is, for programs without an engine"
        )
    if most > 1 and not rdzv_endpoint:
        if rdzv_backend == "c10d":
            raise typer.BadParameter("--rdzv-backend c10d needs --rdzv-endpoint HOST:PORT")
        rdzv_endpoint = f"{master_addr}:{master_port}"
    # Here, because they take seconds to import.
    from mpspmd.cli.group import Group, Nodes, launch_group
    from mpspmd.cli.members import Destinations

    python = () if no_python else (sys.executable, "-u", *(["-m"] if module else []))
    group = Group(
        program=script,
        command=(*python, script, *(args or [])),
        n_ranks=_n_ranks(nproc_per_node),
        has_engine=not ranks_only,
        nodes=Nodes(least, most, node_rank, rdzv_backend, rdzv_endpoint, rdzv_id, local_addr),
        env=dict(variable.split("=", 1) for variable in env or []),
        max_restarts=max_restarts,
        monitor_interval_s=monitor_interval,
    )
    try:
        return launch_group(group, Destinations(log_dir, redirects, tee))
    except (ConfigError, SegmentError) as error:
        raise typer.BadParameter(str(error)) from error


def _n_ranks(text: str) -> int:
    from torch.distributed.run import determine_local_world_size

    try:
        return int(determine_local_world_size(text))
    except ValueError as error:
        raise typer.BadParameter(f"--nproc-per-node {text}: {error}") from error


def main() -> None:
    leave(run_command(app, "mpspmd-launch"))
