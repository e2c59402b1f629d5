"""Version: the option `--version` of the commands that Typer parses."""

from __future__ import annotations

from typing import Annotated

import typer

from mpspmd import __version__


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"mpspmd {__version__}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option(
        "--version", help="Print the version, and end.", callback=_print_version, is_eager=True
    ),
]
"""The type of an option of every command, which only its callback reads."""
