"""mpspmd-launch: starts a script as an engine and its ranks, or as a plain SPMD program like torchrun."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Sequence

from mpspmd import __version__
from mpspmd.cli.command import prepare_process, tell
from mpspmd.processes.quick_exit import exit_quickly

_CPP_LEVEL = "TORCH_CPP_LOG_LEVEL"
_ENDING_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def launch(arguments: Sequence[str]) -> int:
    """The exit code. SystemExit after --help, and after a bad option."""
    if arguments[:1] == ["--version"]:
        print(f"mpspmd {__version__}")
        return 0
    # These import torch, which takes seconds. They are imported here because `main` handles Ctrl-C by now.
    with _quiet_cpp():
        from mpspmd.cli.launch.options import make_parser, parse

        if not arguments:
            make_parser().print_help(sys.stderr)
            return 2
        args = parse(arguments)
        from mpspmd.cli.launch.agent import launch_group
    from mpspmd.errors import ConfigError, SegmentError

    try:
        return launch_group(args)
    except ConfigError as error:
        make_parser().error(str(error))
    except SegmentError as error:
        tell(f"mpspmd-launch: {error}")  # a limit of the machine, so no hint to --help
        return 1


@contextlib.contextmanager
def _quiet_cpp() -> Iterator[None]:
    """Silences torch's C++ code, which reads its log level when torch is imported.

    It would warn where the loopback address has no name, and print C++ frames where nodes don't meet. What
    matters of that is raised as well. The variable is removed again, because the ranks would inherit it.
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
    prepare_process()
    try:
        code = launch(sys.argv[1:])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    exit_quickly(code)


def _prepare_signals() -> None:
    """Handles signals before and after the run; during the run `signals.py` does."""
    for number in _ENDING_SIGNALS:
        # Process 1 of a container gets no signal that it has no handler for.
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, lambda taken, frame: os._exit(128 + taken))
    # A parent may have left SIGCHLD ignored; then the kernel would discard the ranks' exit statuses.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
