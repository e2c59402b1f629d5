"""RunDir: a run's private folder, and the removal of those whose runs are dead."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from mpspmd.errors import SegmentError

_PREFIX = "mpspmd-"
_LOCK = "lock"
_YOUNG_S = 60.0
"""A folder without a lock is being made; if it is empty and older than this, it was given up."""


class RunDir:
    """A folder that only this user can enter, for the control socket. It holds a lock on a file in
    there: the kernel gives that back when this process ends, however it ends."""

    def __init__(self, parent: str | None, remove_at_end: Callable[[str], None]) -> None:
        """Removes what dead runs have left beside it. `remove_at_end` is the janitor's: it is told of the
        folder before there is one, so that no moment is left in which to be killed would leave it.

        SegmentError when no folder can be made.
        """
        folder = Path(parent or tempfile.gettempdir()).absolute()
        remove_dead(folder)
        try:
            self.path, self._fd = _make(folder, remove_at_end)
        except OSError as error:
            raise SegmentError(
                f"no folder for the control socket can be made in {folder}: {error.strerror}; choose "
                "another with MPSPMD_RUNTIME_DIR"
            ) from error

    def remove(self) -> None:
        """Any number of times."""
        if self._fd >= 0:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._fd)
            self._fd = -1


def remove_dead(folder: Path) -> None:
    """Removes the folders of runs of this user that nobody holds the lock of."""
    for path in folder.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            status = path.lstat()
            if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid():
                _remove_if_dead(path, status.st_mtime)


def _remove_if_dead(path: Path, changed: float) -> None:
    try:
        fd = os.open(path / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        if time.time() - changed > _YOUNG_S:
            path.rmdir()  # fails if there is anything in it
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Held: its run is dead, or hasn't locked it yet and will find it gone.
        shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(fd)


def _make(folder: Path, remove_at_end: Callable[[str], None]) -> tuple[Path, int]:
    while True:
        path = folder / f"{_PREFIX}{secrets.token_hex(4)}"
        if path.exists():
            continue
        remove_at_end(str(path))
        path.mkdir(0o700)
        try:
            fd = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            continue
        except OSError:
            path.rmdir()
            raise
        fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_nlink > 0:
            return path, fd
        # Another engine's start has taken it for a dead run's before it was locked.
        os.close(fd)
