"""mpspmd-launch: starts a script as engine and as ranks, or a plain SPMD program; feels like torchrun."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

from mpspmd.runtime.leave import leave


def launch(arguments: Sequence[str]) -> int:
    """The exit code. SystemExit after --help, and after a bad option."""
    # Here, because they import torch, which takes seconds: Ctrl-C meanwhile must not print a traceback.
    from mpspmd.cli.group import launch_group
    from mpspmd.cli.options import make_parser, parse
    from mpspmd.errors import ConfigError, SegmentError

    if not arguments:
        make_parser().print_help(sys.stderr)
        return 2
    args = parse(arguments)
    try:
        return launch_group(args)
    except (ConfigError, SegmentError) as error:
        make_parser().error(str(error))


def main() -> None:
    try:
        code = launch(sys.argv[1:])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    leave(code)
