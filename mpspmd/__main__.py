"""`python -m mpspmd launch …`, and so on: the commands, where their scripts aren't in PATH."""

from __future__ import annotations

import sys

from mpspmd import __version__, _import

_COMMANDS = {
    "launch": "mpspmd.cli.launch.main",
    "top": "mpspmd.cli.top",
    "trace": "mpspmd.cli.trace",
    "alive": "mpspmd.cli.alive",
    "metrics": "mpspmd.cli.metrics",
    "replay": "mpspmd.cli.replay",
    "doctor": "mpspmd.cli.doctor.main",
}


def main() -> None:
    """Runs the command that the first argument names."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name == "--version":
        print(f"mpspmd {__version__}")
    elif name in _COMMANDS:
        sys.argv = [f"mpspmd-{name}", *sys.argv[2:]]
        _import(_COMMANDS[name]).main()
    else:
        usage = f"usage: python -m mpspmd [--version] {{{','.join(_COMMANDS)}}} …"
        print(usage, file=sys.stdout if name in ("-h", "--help") else sys.stderr)
        raise SystemExit(0 if name in ("-h", "--help") else 2)


if __name__ == "__main__":
    main()
