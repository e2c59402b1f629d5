"""Rounds: in each, every peer is measured for a share of messages, so that all see one machine."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from benchmarks.errors import BenchmarkError
from benchmarks.latency import Latency, measure
from benchmarks.pause import pause, resume
from benchmarks.peers.peer import Peer, Setup
from benchmarks.progress import Progress
from benchmarks.signals import deaths_raise, raise_if_interrupted, uninterrupted


def steps(n_peers: int, rounds: int) -> int:
    """How many steps of progress run_rounds() makes."""
    return n_peers * (1 + rounds)


def run_rounds(
    classes: Sequence[type[Peer]],
    setup: Setup,
    request: object,
    rounds: int,
    messages: int,
    progress: Progress,
) -> dict[str, list[Latency]]:
    """Each peer's latency in each round. No process of theirs is left when it returns or raises.

    Only one peer's processes run at any time; those of all others are stopped. BenchmarkError.
    """
    latencies: dict[str, list[Latency]] = {peer.name: [] for peer in classes}
    peers: list[Peer] = []
    try:
        for peer_class in classes:
            raise_if_interrupted()
            with progress.step(f"ranks {setup.ranks}: starting {peer_class.name}"):
                peers.append(peer := peer_class(setup))
                _start(peer, setup)
                pause(peer.pids)
        for number in range(rounds):
            # Another one goes first in each round.
            first = number % len(peers)
            for peer in peers[first:] + peers[:first]:
                raise_if_interrupted()
                with progress.step(
                    f"ranks {setup.ranks}: round {number + 1} of {rounds}, {peer.name}"
                ):
                    latencies[peer.name].append(_measure(peer, request, messages))
    finally:
        with uninterrupted(), contextlib.ExitStack() as ends:
            for peer in peers:
                ends.callback(_end, peer)
    return latencies


def _start(peer: Peer, setup: Setup) -> None:
    try:
        peer.start()
    except Exception as error:
        reason = "; ".join(str(error).splitlines())
        raise BenchmarkError(
            f"{peer.name} can't be started with {setup.ranks} ranks: {reason}"
        ) from error


def _measure(peer: Peer, request: object, messages: int) -> Latency:
    resume(peer.pids)
    try:
        with deaths_raise(peer.pids, peer.name):
            latency = measure(peer, request, messages)
    except BenchmarkError:
        raise
    except Exception as error:
        raise BenchmarkError(f"{peer.name} failed: {type(error).__name__}: {error}") from error
    pause(peer.pids)
    return latency


def _end(peer: Peer) -> None:
    resume(peer.pids)
    peer.close()
