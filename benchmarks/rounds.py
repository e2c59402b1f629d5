"""Rounds: each measures every peer once, so that all peers see the machine in the same states."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from benchmarks.errors import BenchmarkError
from benchmarks.pause import pause, resume
from benchmarks.peers.peer import Peer, Setup
from benchmarks.progress import Progress
from benchmarks.results import Missing
from benchmarks.signals import deaths_raise, raise_if_interrupted, uninterrupted

T = TypeVar("T")


class Task(NamedTuple, Generic[T]):
    """What to measure of each peer in each round."""

    name: str  # shown while it runs
    measure: Callable[[Peer, int], T]  # gets the number of the round
    poll_s: float = 0.5  # how often the engine is interrupted to see whether all ranks live


class Finding(NamedTuple, Generic[T]):
    """The figures of one task of one peer, in the order of the rounds."""

    peer: type[Peer]
    task: int
    rounds: list[T]


def steps(n_peers: int, n_tasks: int, rounds: int) -> int:
    """The largest number of progress steps that run_rounds() makes."""
    return n_peers * (1 + n_tasks * rounds)


def run_rounds(
    classes: Sequence[type[Peer]],
    setup: Setup,
    tasks: Sequence[Task[T]],
    rounds: int,
    progress: Progress,
    missing: list[Missing],
) -> list[Finding[T]]:
    """Measures all tasks of all peers that can have so many ranks; ordered by task, then by peer.

    Only one peer's processes run at any time; those of all others are stopped. No process is left when
    this returns or raises. A peer that can't be started is added to `missing`. BenchmarkError when a peer
    fails later.
    """
    classes = [peer for peer in classes if peer.max_ranks >= setup.ranks]
    findings: dict[tuple[str, int], Finding[T]] = {
        (peer.name, number): Finding(peer, number, [])
        for number in range(len(tasks))
        for peer in classes
    }
    peers: list[Peer] = []
    try:
        for peer_class in classes:
            raise_if_interrupted()
            with progress.step(f"ranks {setup.ranks}: starting {peer_class.name}"):
                peers.append(peer := peer_class(setup))
                try:
                    peer.start()
                except Exception as error:
                    with uninterrupted():
                        peers.remove(peer)
                        peer.close()
                    missing.append({"name": peer.name, "why": _why_not_started(setup, error)})
                    continue
                pause(peer.pids)
        for number in range(rounds):
            for peer in in_turn(peers, number):
                resume(peer.pids)
                for index, task in enumerate(tasks):
                    raise_if_interrupted()
                    with progress.step(
                        f"ranks {setup.ranks}: round {number + 1} of {rounds}, "
                        f"{peer.name}, {task.name}"
                    ):
                        findings[peer.name, index].rounds.append(_measure(peer, task, number))
                pause(peer.pids)
    finally:
        with uninterrupted(), contextlib.ExitStack() as ends:
            for peer in peers:
                ends.callback(_end, peer)
    return [finding for finding in findings.values() if finding.rounds]


def in_turn(items: Sequence[T], number: int) -> list[T]:
    """The order of round `number`: another item goes first in each round."""
    first = number % max(1, len(items))
    return [*items[first:], *items[:first]]


def _why_not_started(setup: Setup, error: Exception) -> str:
    reason = "; ".join(str(error).splitlines())
    return f"failed to start with {setup.ranks} ranks: {type(error).__name__}: {reason}"


def _measure(peer: Peer, task: Task[T], number: int) -> T:
    try:
        with deaths_raise(peer.pids, peer.name, task.poll_s):
            return task.measure(peer, number)
    except BenchmarkError:
        raise
    except Exception as error:
        raise BenchmarkError(f"{peer.name} failed: {type(error).__name__}: {error}") from error


def _end(peer: Peer) -> None:
    resume(peer.pids)
    peer.close()
