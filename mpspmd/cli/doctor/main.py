"""mpspmd-doctor: whether mpspmd will run on this machine, how well, and if not, why."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mpspmd.cli.doctor.checks import CHECKS, Finding, Level, Plan
from mpspmd.cli.typer_command import Version, run_command
from mpspmd.config import RuntimeConfig
from mpspmd.errors import ConfigError
from mpspmd.processes.quick_exit import exit_quickly


def doctor(
    ranks: Annotated[
        int | None,
        typer.Option(
            "--ranks", "-n", min=1, help="How many ranks you plan; else as many as GPUs, or 2."
        ),
    ] = None,
    seconds: Annotated[
        float,
        typer.Option("--seconds", min=0.0, help="How long to measure the channel; 0: not at all."),
    ] = 5.0,
    version: Version = False,
) -> int:
    """Checks what a run needs of this machine, measures the channel, and says what to do.

    The exit code is 1 if something will fail.
    """
    findings: list[Finding] = []
    try:
        config = RuntimeConfig.from_env()
    except ConfigError as error:
        findings.append(Finding(Level.FAILS, "settings", str(error), "unset or correct it"))
        config = RuntimeConfig()
    if ranks is None:
        import torch

        ranks = torch.cuda.device_count() or 2
    plan = Plan(ranks, config)
    for check in CHECKS:
        findings += check(plan)
    if seconds > 0 and not any(finding.level is Level.FAILS for finding in findings):
        from mpspmd.cli.doctor.measure import channel

        findings.append(channel(plan, seconds))
    # In a file or a pipe each finding has one line.
    Console(width=None if sys.stdout.isatty() else 250).print(_table(findings))
    failing = [finding.subject for finding in findings if finding.level is Level.FAILS]
    if failing:
        print(f"mpspmd-doctor: a run of {plan.ranks} rank(s) will fail: {', '.join(failing)}")
        return 1
    print(f"mpspmd-doctor: a run of {plan.ranks} rank(s) will work")
    return 0


def _table(findings: list[Finding]) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    colours = {"ok": "green", "note": "cyan", "slow": "yellow", "fails": "bold red"}
    for finding in findings:
        level = finding.level.value
        table.add_row(
            f"[{colours[level]}]{level}[/]",
            escape(finding.subject),
            escape(finding.found)
            + (f"\n[dim]{escape(finding.advice)}[/]" if finding.advice else ""),
        )
    return table


def main() -> None:
    examples = "mpspmd-doctor; mpspmd-doctor --ranks 8; mpspmd-doctor --seconds 0"
    exit_quickly(run_command(doctor, "mpspmd-doctor", examples))
