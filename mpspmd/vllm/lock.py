"""RankLock: the lock that vLLM's workers of one machine share."""

from __future__ import annotations

import contextlib
import secrets
from typing import Any

import posix_ipc


class RankLock:
    """An argument of the ranks' processes, which open it by name; then the name is of no use.

    multiprocessing's own would be told to its resource tracker, which warns about the name when the
    processes are killed before they can take it back.
    """

    def __init__(self) -> None:
        name = f"/mpspmd-lock-{secrets.token_hex(16)}"
        self._semaphore = posix_ipc.Semaphore(name, posix_ipc.O_CREX, mode=0o600, initial_value=1)

    @property
    def file(self) -> str:
        """Where it has its name."""
        return f"/dev/shm/sem.{self._semaphore.name.removeprefix('/')}"

    def unlink(self) -> None:
        """Once every rank has it, or when there will be none. More than once does nothing."""
        with contextlib.suppress(posix_ipc.ExistentialError):
            self._semaphore.unlink()

    def __enter__(self) -> None:
        self._semaphore.acquire()

    def __exit__(self, *exception: object) -> None:
        self._semaphore.release()

    def __reduce__(self) -> tuple[Any, ...]:
        return _open, (self._semaphore.name,)


def _open(name: str) -> RankLock:
    lock = RankLock.__new__(RankLock)
    lock._semaphore = posix_ipc.Semaphore(name)
    return lock
