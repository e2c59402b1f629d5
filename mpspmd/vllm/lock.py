"""RankLock: the lock that vLLM's workers on one machine share."""

from __future__ import annotations

import secrets

import posix_ipc

from mpspmd.vllm.leftovers import file_of


def lock_name() -> str:
    """The engine only chooses the name. Ranks make the lock, when the janitor knows its file already."""
    return f"/mpspmd-lock-{secrets.token_hex(16)}"


def lock_file(name: str) -> str:
    """The file that shows the lock's name. It can be removed when every rank has opened the lock."""
    return file_of(name, "semaphore")


class RankLock:
    """Each rank opens it, and the first rank makes it.

    multiprocessing's own lock would register with its resource tracker, which warns of the name if the
    processes are killed before they can remove it.
    """

    def __init__(self, name: str) -> None:
        self._semaphore = posix_ipc.Semaphore(name, posix_ipc.O_CREAT, mode=0o600, initial_value=1)

    def __enter__(self) -> None:
        self._semaphore.acquire()

    def __exit__(self, *exception: object) -> None:
        self._semaphore.release()
