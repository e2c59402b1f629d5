"""The commands that Typer parses: how they run, and their option --version."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.main import get_command

from mpspmd import __version__
from mpspmd.cli.command import prepare_process, tell

# Bad options raise subclasses of click's UsageError, which Typer doesn't export.
_USAGE_ERROR: Any = typer.BadParameter.__mro__[1]


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


def run_command(command: Callable[..., int], name: str, examples: str) -> int:
    """Runs a command with this process's arguments, and returns its exit code.

    For a bad option it prints one line on stderr, and the exit code is 2. Ctrl-C prints no traceback.
    """
    prepare_process()
    app = typer.Typer(add_completion=False, rich_markup_mode="rich")
    context = {
        "help_option_names": ["-h", "--help"],
        # Long options may be written with underscores, as torchrun's options.
        "token_normalize_func": lambda name: name.replace("_", "-"),
    }
    app.command(context_settings=context, epilog=f"Examples: {examples}")(command)
    try:
        code = get_command(app).main(prog_name=name, standalone_mode=False)
        sys.stdout.flush()
    except _USAGE_ERROR as error:
        message = " ".join(error.format_message().split())
        print(f"{name}: {message} (see {name} --help)", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, typer.Abort):
        return 128 + signal.SIGINT
    except OSError as error:
        sys.stdout = None  # or Python would flush it at exit, into the broken pipe or the full disk
        if not isinstance(error, BrokenPipeError):
            tell(f"{name}: {error}")
        return 1
    return code if isinstance(code, int) else 0
