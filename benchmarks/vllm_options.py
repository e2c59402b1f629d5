"""Options of step_overhead and vllm_e2e."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """Of one tool; --rounds and --json are there already."""

    def __init__(self, tool: str, description: str) -> None:
        super().__init__(prog=tool, description=description, allow_abbrev=False)
        self.add("--rounds", whole_number, "5", "results are medians over them")
        self.add_argument(
            "--json", type=_file, metavar="FILE", help="where to write the results as well"
        )

    def add(self, name: str, kind: Callable[[str], object], default: str, text: str) -> None:
        """An option with a default, which is a text like any given one."""
        self.add_argument(
            name, type=kind, default=default, metavar="N", help=f"{text} (default: %(default)s)"
        )

    def error(self, message: str) -> NoReturn:
        """One line, exit code 2."""
        self.exit(2, f"{self.prog}: {message}\n")


def whole_number(text: str) -> int:
    if text.strip().isdecimal() and int(text) >= 1:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")


def whole_numbers(text: str) -> list[int]:
    return [whole_number(part) for part in text.split(",")]


def names(*known: str) -> Callable[[str], list[str]]:
    def take(text: str) -> list[str]:
        for name in (given := text.split(",")):
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r}: there are {', '.join(known)}")
        return given

    return take


def _file(text: str) -> Path:
    """Where a file can be written: known before the benchmark runs."""
    path = Path(text)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("a").close()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text!r} can't be written: {error.strerror}") from None
    return path
