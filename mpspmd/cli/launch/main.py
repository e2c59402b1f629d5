"""mpspmd-launch: starts a script as engine and as ranks, or a plain SPMD program; feels like torchrun."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Sequence

from mpspmd.cli.startup import mend_surroundings
from mpspmd.cli.streams import tell
from mpspmd.processes.quick_exit import exit_quickly

_CPP_LEVEL = "TORCH_CPP_LOG_LEVEL"
_ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def launch(arguments: Sequence[str]) -> int:
    """The exit code. SystemExit after --help, and after a bad option."""
    # Here, because they import torch, which takes seconds: Ctrl-C meanwhile must not print a traceback.
    with _quiet_cpp():
        from mpspmd.cli.launch.group import launch_group
        from mpspmd.cli.launch.options import make_parser, parse
    from mpspmd.errors import ConfigError, SegmentError

    if not arguments:
        make_parser().print_help(sys.stderr)
        return 2
    args = parse(arguments)
    try:
        return launch_group(args)
    except ConfigError as error:
        make_parser().error(str(error))
    except SegmentError as error:
        # Of the machine, not of an option.
        tell(f"mpspmd-launch: {error}")
        return 1


@contextlib.contextmanager
def _quiet_cpp() -> Iterator[None]:
    """Around the import of torch. Its C++ code would print a warning where the loopback address has no
    name, and C++ frames where nodes don't meet. What matters of that comes as an exception, too. The ranks
    don't inherit it.
    """
    if _CPP_LEVEL in os.environ:
        yield
        return
    os.environ[_CPP_LEVEL] = "FATAL"
    try:
        yield
    finally:
        del os.environ[_CPP_LEVEL]


def main() -> None:
    _prepare_signals()
    mend_surroundings()
    try:
        code = launch(sys.argv[1:])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    exit_quickly(code)


def _prepare_signals() -> None:
    """For the time before and after the run, in which nothing else handles them."""
    for number in _ENDING:
        # Without a handler, process 1 of a container would never get the signal.
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, lambda taken, frame: os._exit(128 + taken))
    # Where the parent had ignored it, how the ranks end could not be told.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
