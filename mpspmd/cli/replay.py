"""mpspmd-replay: recorded requests for ranks, without the engine, the scheduler and the clients."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import operator
import os
import pickle
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mpspmd.cli.command import write_all
from mpspmd.cli.typer_command import Version, run_command
from mpspmd.config import RuntimeConfig
from mpspmd.engine.versions import versions
from mpspmd.errors import MpSpmdError, RecordingError, text_of
from mpspmd.recording.reader import Contents, Recording
from mpspmd.replay.engine import ReplayEngine
from mpspmd.replay.replay import Replay, Result

_WIDTH = 110
_VLLM_WORKER = "mpspmd.vllm.worker:RankWorker"
_SETTINGS: dict[str, Any] = {"record_requests": None, "step_deltas": True, "digest_requests": True}
"""A replay isn't recorded, decodes steps if the recording has any, and its ranks prove what they got."""


def replay(
    file: Annotated[str, typer.Argument(help="What MPSPMD_RECORD_REQUESTS has written.")],
    worker: Annotated[
        str | None,
        typer.Argument(metavar="[MODULE:CLASS]", help="Another worker than the recorded one."),
    ] = None,
    ranks: Annotated[
        int | None,
        typer.Option("-n", "--ranks", min=1, help="How many ranks; else as many as recorded."),
    ] = None,
    vllm: Annotated[
        bool, typer.Option("--vllm", help="The ranks of vLLM, with the recorded configuration.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=0.01, help="Seconds that a request may take.")
    ] = 600.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    version: Version = False,
) -> int:
    """Gives the recorded requests to new ranks, and compares their replies with the recorded ones.

    It runs code that the file names: replay only what you or a trusted user has recorded.

    The exit code is 0 if the file is whole and all replies are the same.
    """
    if vllm and worker is not None:
        raise typer.BadParameter("give MODULE:CLASS or --vllm, not both")
    out = os.dup(1)
    if as_json:
        os.dup2(2, 1)  # so that what ranks print doesn't mix with the JSON
    try:
        with Recording(file) as recording:
            contents = recording.scan()
            if contents.error is not None:
                print(f"mpspmd-replay: {contents.error}", file=sys.stderr)
            _compare_versions(recording.about.versions)
            with _started(recording, worker, ranks, vllm) as (engine, measuring):
                result = Replay(
                    engine, recording, contents, timeout_s=timeout, measuring=measuring
                ).run()
    except MpSpmdError as error:
        print(f"mpspmd-replay: {text_of(error)}", file=sys.stderr)
        return 1
    if result.missing:
        print(
            f"mpspmd-replay: {file} has the requests of the start, and then begins at step "
            f"{result.missing}: the ranks don't have what the steps in between have left in them",
            file=sys.stderr,
        )
    if result.error is not None:
        print(f"mpspmd-replay: {text_of(result.error)}", file=sys.stderr)
    if as_json:
        write_all(out, msgspec.json.encode(_figures(result, contents)) + b"\n")
    else:
        _print(result, contents)
    return 0 if result.is_good and contents.error is None else 1


def _compare_versions(recorded: dict[str, str]) -> None:
    here = versions()
    for package, version in recorded.items():
        if here.get(package) != version:
            print(
                f"mpspmd-replay: recorded with {package} {version}, replayed with {here.get(package)}",
                file=sys.stderr,
            )


@contextlib.contextmanager
def _started(
    recording: Recording, worker: str | None, ranks: int | None, vllm: bool
) -> Iterator[tuple[ReplayEngine, frozenset[str]]]:
    """An engine, and the methods whose replies differ in each run."""
    about = recording.about
    for name, text in about.environ.items():
        os.environ.setdefault(name, text)
    sys.path.insert(0, os.getcwd())
    measuring = frozenset[str]()
    with contextlib.ExitStack() as around:
        if vllm:
            if about.worker != _VLLM_WORKER:
                raise RecordingError(
                    f"{recording.path}: these are requests of {about.worker}, not of vLLM: omit --vllm"
                )
            # Do this first: it raises RecordingError if vLLM isn't installed.
            (vllm_config, *_), _ = _load(recording, "args")
            from mpspmd.vllm.replay import MEASURING, vllm_ranks

            arguments = around.enter_context(vllm_ranks(vllm_config, **_SETTINGS))
            measuring = MEASURING
        elif worker is None and about.worker == _VLLM_WORKER:
            raise RecordingError(f"{recording.path}: these are requests of vLLM: give --vllm")
        else:
            args, kwargs = _load(recording, "args")
            arguments = {
                "worker": _load(recording, "worker") if worker is None else _import(worker),
                "args": args,
                "kwargs": kwargs,
                "config": RuntimeConfig.from_env(defaults=about.settings, **_SETTINGS),
            }
        arguments["step_codec"] = _load(recording, "step_codec")
        arguments["fatal_methods"] = about.fatal_methods
        engine = ReplayEngine(world_size=ranks or about.world_size, **arguments)
        around.enter_context(engine)
        yield engine, measuring


def _load(recording: Recording, part: str) -> Any:
    """Runs what the pickle says. RecordingError."""
    data = getattr(recording.spec, part)
    if not data:
        raise RecordingError(f"{recording.path}: {part} couldn't be pickled when it was recorded")
    try:
        return pickle.loads(data)
    except Exception as error:
        raise RecordingError(
            f"{recording.path}: {part} can't be rebuilt here: {type(error).__name__}: {text_of(error)}"
        ) from error


def _import(name: str) -> Any:
    module, _, path = name.partition(":")
    try:
        return operator.attrgetter(path)(importlib.import_module(module))
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise typer.BadParameter(f"{name!r}: must be MODULE:CLASS: {text_of(error)}") from None


def _figures(result: Result, contents: Contents) -> dict[str, Any]:
    """What --json prints. Times in seconds."""
    figures = dataclasses.asdict(dataclasses.replace(result, error=None))
    figures["error"] = None if result.error is None else text_of(result.error)
    figures["file_error"] = None if contents.error is None else str(contents.error)
    figures["times"] = {
        method: {"n": len(times.replayed_s), "recorded": _spread(times.recorded_s)}
        | {"replayed": _spread(times.replayed_s)}
        for method, times in result.times.items()
    }
    return figures


def _spread(seconds: list[float]) -> dict[str, float]:
    p50, p90, p99 = np.percentile(seconds, (50, 90, 99)).tolist()
    return {"p50": p50, "p90": p90, "p99": p99, "total": sum(seconds)}


def _print(result: Result, contents: Contents) -> None:
    table = Table(title=f"{result.requests} of {contents.requests} requests", title_justify="left")
    for name in ("method", "", "steps", "median", "90 %", "99 %", "total"):
        table.add_column(name, justify="left" if name in ("method", "") else "right")
    for method, times in result.times.items():
        for which in ("recorded", "replayed"):
            spread = _spread(getattr(times, f"{which}_s"))
            cells = (f"{seconds * 1e3:.3f} ms" for seconds in spread.values())
            table.add_row(Text(method), which, str(len(times.replayed_s)), *cells)
            method = ""
    console = Console()
    console.width = max(console.width, _WIDTH)
    console.print(table)
    for line in result.differences:
        print(line)
    print(
        f"replies: {result.same} the same, {result.different} different, {result.uncompared} not compared"
    )
    print(f"digest of the replies: recorded {result.recorded_digest}")
    print(f"                       replayed {result.replayed_digest}")
    words = {True: "got the same requests", False: "did NOT get the same requests"}
    if result.requests_agree is not None:
        print(f"all ranks {words[result.requests_agree]}")


def main() -> None:
    examples = (
        "mpspmd-replay requests.rec; mpspmd-replay requests.rec worker:Class -n 2; "
        "mpspmd-replay requests.rec --vllm --json"
    )
    sys.exit(run_command(replay, "mpspmd-replay", examples))
