"""How each command is run: bad options are one line and exit code 2, Ctrl-C has no traceback."""

from __future__ import annotations

import signal
import sys
from typing import Any

import typer
from typer.main import get_command

from mpspmd.cli.startup import mend_surroundings

# Typer doesn't export the base of what bad options raise.
_UsageError: Any = typer.BadParameter.__mro__[1]

CONTEXT = {
    "help_option_names": ["-h", "--help"],
    "token_normalize_func": lambda name: name.replace("_", "-"),
}
"""Long options may be written with underscores, as torchrun's."""


def run_command(app: typer.Typer, name: str) -> int:
    """Runs a command with this process's arguments; its exit code."""
    mend_surroundings()
    try:
        code = get_command(app).main(prog_name=name, standalone_mode=False)
    except _UsageError as error:
        message = error.format_message()
        print(f"{name}: {' '.join(message.split())} (see {name} --help)", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, typer.Abort):
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # Whoever read the output has gone; nothing may be flushed into it any more.
        sys.stdout = None
        return 1
    return code if isinstance(code, int) else 0
