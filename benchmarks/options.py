"""Options of channel_latency."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeVar

from benchmarks.peers import CLASSES
from benchmarks.peers.peer import Repliers

_MAX_RANKS = 64  # mpspmd's limit
_MAX_SIZE = 1 << 28
_T = TypeVar("_T")


@dataclass(frozen=True)
class Options:
    ranks: list[int]
    size: int  # bytes
    rounds: int
    messages: int  # in each round
    reply: Repliers
    transports: list[str]
    json: Path | None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, exit code 2."""
        self.exit(2, f"{self.prog}: {message}\n")


def parse(arguments: Sequence[str] | None = None) -> Options:
    """SystemExit when an option is wrong, or when help was asked for."""
    parser = _Parser(
        prog="channel_latency",
        description="The round trip of one message, engine -> ranks -> engine, one at a time.",
        epilog="Transports: " + ", ".join(CLASSES) + ".",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--ranks", type=_ranks, default="1,2,4", metavar="N,N", help="default: %(default)s"
    )
    parser.add_argument(
        "--size",
        type=_size,
        default="64",
        metavar="BYTES",
        help="payload of a request (default: %(default)s)",
    )
    parser.add_argument(
        "--rounds",
        type=_count,
        default="5",
        metavar="N",
        help="results are medians over them (default: %(default)s)",
    )
    parser.add_argument(
        "--messages",
        type=_count,
        default="5000",
        metavar="N",
        help="how many are timed in each round (default: %(default)s)",
    )
    parser.add_argument(
        "--reply",
        choices=("all", "rank0"),
        default="all",
        help="who replies; every rank gets each request (default: %(default)s)",
    )
    parser.add_argument(
        "--transports",
        type=_transports,
        default=",".join(CLASSES),
        metavar="NAME,NAME",
        help="default: all",
    )
    parser.add_argument(
        "--json", type=_file, metavar="FILE", help="where to write the results as well"
    )
    return Options(**vars(parser.parse_args(arguments)))


def _ranks(text: str) -> list[int]:
    return _unique([_number(part, 1, _MAX_RANKS) for part in text.split(",")], text)


def _size(text: str) -> int:
    return _number(text, 0, _MAX_SIZE)


def _count(text: str) -> int:
    return _number(text, 1, 10**9)


def _number(text: str, low: int, high: int) -> int:
    if text.strip().isdecimal() and low <= int(text) <= high:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low} to {high}")


def _transports(text: str) -> list[str]:
    for name in (names := text.split(",")):
        if name not in CLASSES:
            raise argparse.ArgumentTypeError(
                f"there is no transport {name!r}; there are {', '.join(CLASSES)}"
            )
    return _unique(names, text)


def _unique(values: list[_T], text: str) -> list[_T]:
    if len(set(values)) < len(values):
        raise argparse.ArgumentTypeError(f"{text!r} names something twice")
    return values


def _file(text: str) -> Path:
    """Where a file can be written, its folder included. Known before the benchmark runs."""
    path = Path(text)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("a").close()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text!r} can't be written: {error.strerror}") from None
    return path
