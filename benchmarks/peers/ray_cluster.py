"""RayCluster: one Ray on this machine, shared by the peers that need it."""

from __future__ import annotations

import logging
import os
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when Ray starts

import psutil
import ray

from benchmarks.pause import resume
from benchmarks.peers.peer import MAX_RANKS, Setup
from benchmarks.signals import uninterrupted

VERSION: str = ray.__version__
_OBJECT_STORE_BYTES = 2 << 30
_NEVER_MS = 10**9


class RayCluster:
    """Main thread of the engine's process. Starts with its first user and ends with the last."""

    _users = 0
    _services: tuple[psutil.Process, ...] = ()

    @classmethod
    def join(cls) -> None:
        cls._users += 1
        if cls._users > 1:
            resume(cls.pids())  # another user may have paused it
            return
        before = psutil.Process().children()
        with uninterrupted():
            ray.init(
                num_cpus=2 * MAX_RANKS,  # actors take one each
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                object_store_memory=_OBJECT_STORE_BYTES,
                # Its processes are stopped while others are measured; Ray must not give them up.
                _system_config={"health_check_period_ms": _NEVER_MS},
            )
        cls._services = tuple(set(psutil.Process().children()) - set(before))

    @classmethod
    def leave(cls) -> None:
        cls._users -= 1
        if not cls._users:
            with uninterrupted():
                ray.shutdown()

    @classmethod
    def pids(cls) -> list[int]:
        """All of Ray's processes, those of actors included."""
        processes = [
            process
            for service in cls._services
            if service.is_running()
            for process in (service, *service.children(recursive=True))
        ]
        return [process.pid for process in processes]


@ray.remote
class RayRank:
    """An actor that is one rank. It always returns something, if only SILENT."""

    def __init__(self, setup: Setup, rank: int) -> None:
        self._respond = setup.responder(rank)

    def pid(self) -> int:
        return os.getpid()

    def take(self, request: object) -> object:
        return self._respond(request)


def start_ranks(setup: Setup) -> tuple[list[Any], list[int]]:
    """The actors, and all process ids, the actors' first."""
    ranks = [RayRank.remote(setup, rank) for rank in range(setup.ranks)]  # type: ignore[attr-defined]
    pids = ray.get([rank.pid.remote() for rank in ranks])
    return ranks, [*pids, *(pid for pid in RayCluster.pids() if pid not in pids)]
