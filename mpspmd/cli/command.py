"""What each command does around its work: it prepares the process, and turns errors into exit codes."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Any

from mpspmd.cli.streams import open_standard_streams
from mpspmd.processes.working_directory import leave_a_deleted_working_directory

if TYPE_CHECKING:
    import typer

CONTEXT = {
    "help_option_names": ["-h", "--help"],
    "token_normalize_func": lambda name: name.replace("_", "-"),
}
"""Long options may be written with underscores, as torchrun's options."""


def prepare_process() -> None:
    """Call it first: a closed standard stream or a deleted working directory must not break a command."""
    open_standard_streams()
    leave_a_deleted_working_directory()


def run_command(app: typer.Typer, name: str) -> int:
    """Runs a Typer command with this process's arguments, and returns its exit code.

    A bad option is one line on stderr and exit code 2. Ctrl-C prints no traceback.
    """
    import typer
    from typer.main import get_command

    # Bad options raise subclasses of click's UsageError, which Typer doesn't export.
    usage_error: Any = typer.BadParameter.__mro__[1]
    prepare_process()
    try:
        code = get_command(app).main(prog_name=name, standalone_mode=False)
    except usage_error as error:
        message = " ".join(error.format_message().split())
        print(f"{name}: {message} (see {name} --help)", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, typer.Abort):
        return 128 + signal.SIGINT
    except BrokenPipeError:
        sys.stdout = None  # or Python would flush it at exit, into the broken pipe
        return 1
    return code if isinstance(code, int) else 0
