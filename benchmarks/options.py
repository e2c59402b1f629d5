"""Parsers of the tools' command lines: the options that they share, and the types of their values."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

from benchmarks.peers import CLASSES
from benchmarks.peers.peer import MAX_RANKS

_MAX_SIZE = 1 << 28
_MAX_COUNT = 10**9
_T = TypeVar("_T")


class ToolParser(argparse.ArgumentParser):
    """For one tool, with the options that all tools have: --rounds, --json and --plot."""

    def __init__(self, tool: str, description: str, *, rounds: int = 5, epilog: str | None = None):
        super().__init__(prog=tool, description=description, epilog=epilog, allow_abbrev=False)
        self.add("--rounds", count, str(rounds), "N", "results are medians over them")
        self.add_argument("--json", type=_file, metavar="FILE", help="also write the results here")
        self.add_argument(
            "--plot", type=_file, metavar="FILE", help="draw the results here (.png, .svg)"
        )

    def add(
        self, name: str, kind: Callable[[str], object], default: str, metavar: str, text: str
    ) -> None:
        """An option whose default is a text, as the user would give it."""
        self.add_argument(
            name, type=kind, default=default, metavar=metavar, help=f"{text} (default: %(default)s)"
        )

    def error(self, message: str) -> NoReturn:
        """Prints one line, and ends with exit code 2."""
        self.exit(2, f"{self.prog}: {message}\n")


class Parser(ToolParser):
    """For a tool that measures transports: adds --ranks and --transports."""

    def __init__(
        self,
        tool: str,
        description: str,
        *,
        ranks: str,
        rounds: int,
        transports: Sequence[str] = (),
        known: Sequence[str] = tuple(CLASSES),
    ) -> None:
        """Without `transports` there is no option --transports."""
        epilog = "Transports: " + ", ".join(known) + "." if transports else None
        super().__init__(tool, description, rounds=rounds, epilog=epilog)
        self.add("--ranks", whole_numbers(1, MAX_RANKS), ranks, "N,N", "how many ranks")
        if transports:
            take = names(known, "transport")
            self.add("--transports", take, ",".join(transports), "NAME,NAME", "what to measure")


def count(text: str) -> int:
    return _number(text, 1, _MAX_COUNT)


def counts(text: str) -> list[int]:
    return whole_numbers(1, _MAX_COUNT)(text)


def sizes(text: str) -> list[int]:
    """Bytes; K and M stand for KiB and MiB."""
    return _unique([_size(part) for part in text.split(",")], text)


def whole_numbers(low: int, high: int) -> Callable[[str], list[int]]:
    return lambda text: _unique([_number(part, low, high) for part in text.split(",")], text)


def numbers(low: float, high: float) -> Callable[[str], list[float]]:
    take = number(low, high)
    return lambda text: _unique([take(part) for part in text.split(",")], text)


def number(low: float, high: float) -> Callable[[str], float]:
    def take(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if low <= value <= high:
            return value
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from {low:g} to {high:g}")

    return take


def names(known: Sequence[str], what: str) -> Callable[[str], list[str]]:
    def take(text: str) -> list[str]:
        for name in (given := text.split(",")):
            if name not in known:
                raise argparse.ArgumentTypeError(
                    f"there is no {what} {name!r}; there are {', '.join(known)}"
                )
        return _unique(given, text)

    return take


def _size(text: str) -> int:
    units = {"K": 1 << 10, "M": 1 << 20}
    digits, unit = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 1)
    if digits.strip().isdecimal() and 0 <= (size := int(digits) * unit) <= _MAX_SIZE:
        return size
    raise argparse.ArgumentTypeError(f"{text!r} is not a size from 0 to {_MAX_SIZE >> 20}M")


def _number(text: str, low: int, high: int) -> int:
    if text.strip().isdecimal() and low <= int(text) <= high:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low} to {high}")


def _unique(values: list[_T], text: str) -> list[_T]:
    if len(set(values)) < len(values):
        raise argparse.ArgumentTypeError(f"{text!r} has a value twice")
    return values


def _file(text: str) -> Path:
    """A path that can be written to; its folder is made. Checked before the benchmark runs."""
    path = Path(text)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("a").close()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text!r} can't be written: {error.strerror}") from None
    return path
