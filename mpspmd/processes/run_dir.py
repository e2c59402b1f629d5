"""RunDir: a run's private folder, and the removal of the folders of runs that have ended."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import socket
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from mpspmd.control.plane import check_socket_path
from mpspmd.errors import SegmentError
from mpspmd.machine.advice import advice
from mpspmd.processes.janitor_process import LOCK, remove_tree
from mpspmd.transport.descriptor import above_standard
from mpspmd.transport.segment import SHM

_NAME = re.compile(r"mpspmd-[0-9a-f]{8}")
_MARKER = (
    b"Made by mpspmd for one run, which keeps this file locked. The next run removes the folder.\n"
)
_SOCKET = "engine-00"
"""As long as any socket's name in a run folder; see control/plane.py and cli/launch/process_setup.py."""


class RunDir:
    """A folder that only this user can enter, for the control socket.

    This process locks a file in the folder. When the process ends, in whatever way, the kernel unlocks the
    file, and the next run removes the folder.
    """

    def __init__(self, parent: str | None, remove_at_end: Callable[[str], None]) -> None:
        """Makes it in `parent`; None: in the first of the usual places where a socket can be made.

        Removes the folders there of runs that have ended. `remove_at_end` is the janitor's. It is called
        before the folder is made, so that a kill at any moment leaves no folder. Raises SegmentError if no
        folder can be made.
        """
        failures: list[tuple[str, OSError]] = []
        for folder in parents(parent):
            remove_dead(Path(folder))
            try:
                self.path, self._fd = _make(Path(folder), remove_at_end)
            except OSError as error:
                failures.append((folder, error))
            else:
                break
        else:
            raise SegmentError(_describe(failures)) from failures[0][1]
        self.passed_over = "; ".join(
            f"{folder}: {error.strerror or error}" for folder, error in failures
        )
        """Why the earlier places can't be used, or ""."""

    def remove(self) -> None:
        """More than once does nothing."""
        if self._fd >= 0:
            remove_tree(str(self.path))
            os.close(self._fd)
            self._fd = -1


def parents(chosen: str | None) -> list[str]:
    """Where a run's folder may be made, in the order of trying."""
    if chosen:
        return [os.path.abspath(chosen)]
    places = []
    with contextlib.suppress(OSError):  # no temporary folder is writable
        places.append(os.path.abspath(tempfile.gettempdir()))
    places += [os.environ.get("XDG_RUNTIME_DIR", ""), SHM]
    return list(dict.fromkeys(place for place in places if os.path.isabs(place)))


def known_places(chosen: str | None) -> list[str]:
    """Where a run's files may lie: its folder, and the files that ranks make elsewhere."""
    return list(dict.fromkeys([*parents(chosen), *parents(None)]))


def remove_dead(folder: Path) -> None:
    """Removes those folders of this user's runs that no process has locked."""
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if _NAME.fullmatch(name):
                with contextlib.suppress(OSError):
                    _remove_if_dead(folder / name)


def _remove_if_dead(path: Path) -> None:
    """Only if the marker shows that a run has made it. OSError for any other folder."""
    if not _is_private(path.lstat(), stat.S_IFDIR):
        return
    lock = above_standard(os.open(path / LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW))
    try:
        # A run that is starting writes the marker after it has locked the file.
        if _is_private(os.fstat(lock), stat.S_IFREG) and os.read(lock, 1024) == _MARKER:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove_tree(str(path))
    finally:
        os.close(lock)


def _is_private(status: os.stat_result, kind: int) -> bool:
    """Whether it is of that kind, and only this user has access."""
    return (
        stat.S_IFMT(status.st_mode) == kind
        and stat.S_IMODE(status.st_mode) & 0o077 == 0
        and status.st_uid == os.geteuid()
    )


def _make(folder: Path, remove_at_end: Callable[[str], None]) -> tuple[Path, int]:
    """The folder, and the descriptor that holds its lock. OSError, and then no folder is left."""
    # The janitor must not remove what somebody else has made.
    while os.path.lexists(path := folder / f"mpspmd-{secrets.token_hex(4)}"):
        pass
    check_socket_path(path / _SOCKET)
    remove_at_end(str(path))
    path.mkdir(0o700)
    try:
        path.chmod(0o700)  # regardless of the umask
        control = path / "control"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.bind(os.fspath(control))  # some file systems hold no sockets
        control.unlink()
        fd = above_standard(
            os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        )
        try:
            os.fchmod(fd, 0o600)
            fcntl.flock(fd, fcntl.LOCK_EX)
            os.write(fd, _MARKER)
        except OSError:
            os.close(fd)
            raise
    except OSError:
        remove_tree(str(path))
        raise
    return path, fd


def _describe(failures: list[tuple[str, OSError]]) -> str:
    # A SegmentError has no strerror.
    tried = [
        f"in {folder}: {f'{error.strerror} ({advice(error.errno)})' if error.strerror else error}"
        for folder, error in failures
    ]
    return (
        f"no folder for the run's sockets can be made. {'; '.join(tried)}. Another folder can be chosen "
        "with MPSPMD_RUNTIME_DIR"
    )
