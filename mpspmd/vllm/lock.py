"""RankLock: the lock that vLLM's workers of one machine share."""

from __future__ import annotations

import secrets

import posix_ipc

from mpspmd.vllm.leftovers import file_of


def lock_name() -> str:
    """The engine chooses it, and makes nothing: what it had made would be left if it were killed now."""
    return f"/mpspmd-lock-{secrets.token_hex(16)}"


def lock_file(name: str) -> str:
    """Where the lock has its name, which is of no use once every rank has opened it."""
    return file_of(name, "semaphore")


class RankLock:
    """Each rank opens it; the first one to come makes it.

    multiprocessing's own would be told to its resource tracker, which warns about the name when the
    processes are killed before they can take it back.
    """

    def __init__(self, name: str) -> None:
        self._semaphore = posix_ipc.Semaphore(name, posix_ipc.O_CREAT, mode=0o600, initial_value=1)

    def __enter__(self) -> None:
        self._semaphore.acquire()

    def __exit__(self, *exception: object) -> None:
        self._semaphore.release()
