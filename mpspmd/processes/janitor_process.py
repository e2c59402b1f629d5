"""The janitor's own process: collects names, and removes them when the last who could send any is gone.

Runs as a script, with the standard library alone: `python -I -S janitor_process.py`. Names come through
standard input, in frames. Whatever else is written there is skipped.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import struct
import zlib
from collections.abc import Iterator, Sequence

VARIABLE = "_MPSPMD_JANITOR"
"""The environment variable in which the engine tells it, as JSON:

token: what each frame begins with, in hex. It is new in each run, so no other text is taken for a frame.
folders: names that come later must lie in one of these.
patterns: absolute paths or shell patterns to remove as well, wherever they are.
"""
TOKEN_BYTES = 16
_SIZES = struct.Struct("=HQQ")  # bytes of the name; device and inode, or zeros
_CHECK = struct.Struct("=I")  # CRC-32 of all that comes before
MAX_NAME_BYTES = 4096 - TOKEN_BYTES - _SIZES.size - _CHECK.size
"""A frame has at most PIPE_BUF bytes: those of several processes don't mix."""
Identity = tuple[int, int]
"""A file's device and inode."""
_UNKNOWN: Identity = (0, 0)


def frame(token: bytes, name: bytes, identity: Identity = _UNKNOWN) -> bytes:
    """One name, for one write. With an identity only that very file is removed, no later one."""
    head = token + _SIZES.pack(len(name), *identity) + name
    return head + _CHECK.pack(zlib.crc32(head))


class Frames:
    """Finds the frames in a stream of bytes."""

    def __init__(self, token: bytes) -> None:
        self._token = token
        self._data = b""

    def feed(self, data: bytes) -> Iterator[tuple[bytes, Identity]]:
        """The names that are complete by now. What is no frame is dropped, so that little is kept."""
        self._data += data
        while (begin := self._data.find(self._token)) >= 0:
            self._data = self._data[begin:]
            sizes_end = TOKEN_BYTES + _SIZES.size
            if len(self._data) < sizes_end:
                return
            size, device, inode = _SIZES.unpack(self._data[TOKEN_BYTES:sizes_end])
            name_end = sizes_end + size
            end = name_end + _CHECK.size
            whole = size <= MAX_NAME_BYTES
            if whole and len(self._data) < end:
                # Cut short by its writer's death, or still coming. A frame that follows tells which.
                if self._data.find(self._token, 1) < 0:
                    return
                whole = False
            if whole and _CHECK.unpack(self._data[name_end:end])[0] == zlib.crc32(
                self._data[:name_end]
            ):
                yield self._data[sizes_end:name_end], (device, inode)
                self._data = self._data[end:]
            else:
                self._data = self._data[1:]
        self._data = self._data[-TOKEN_BYTES + 1 :]


def place(name: str, folders: Sequence[str]) -> tuple[str, list[str]] | None:
    """The folder that `name` lies in, and the way from there; None when it lies in none of them.

    Names are taken as they are written: nothing in them is a pattern, and `..` leads nowhere.
    """
    for folder in folders:
        inside = folder.rstrip("/") + "/"
        if name.startswith(inside) and "\0" not in name:
            steps = name[len(inside) :].split("/")
            if not {"", ".", ".."} & set(steps):
                return folder, steps
    return None


def remove(folder: str, steps: Sequence[str], identity: Identity = _UNKNOWN) -> None:
    """Removes a file, or a folder with all that is in it, if it is this user's.

    No symbolic link is followed, from `folder` on; one at the end is removed itself.
    """
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    with contextlib.suppress(OSError):
        fd = os.open(folder, flags)
        try:
            for step in steps[:-1]:
                inner = os.open(step, flags, dir_fd=fd)
                os.close(fd)
                fd = inner
            _remove_at(fd, steps[-1], identity)
        finally:
            os.close(fd)


def _remove_at(fd: int, name: str, identity: Identity) -> None:
    status = os.stat(name, dir_fd=fd, follow_symlinks=False)
    if status.st_uid != os.geteuid():
        return
    if identity not in (_UNKNOWN, (status.st_dev, status.st_ino)):
        return
    if stat.S_ISDIR(status.st_mode):
        import shutil

        shutil.rmtree(name, ignore_errors=True, dir_fd=fd)
    else:
        os.unlink(name, dir_fd=fd)


def matches(pattern: str) -> list[str]:
    """The paths that a pattern means now; a path that exists means itself, whatever is in its name."""
    if os.path.lexists(pattern):
        return [pattern]
    import glob

    return glob.glob(pattern)


def ignore_signals() -> None:
    """All that are sent to groups of processes, or that tell of a limit."""
    own = {
        signal.SIGBUS,
        signal.SIGFPE,
        signal.SIGILL,
        signal.SIGSEGV,
        signal.SIGABRT,
        signal.SIGCHLD,
    }
    for number in signal.valid_signals() - own - {signal.SIGKILL, signal.SIGSTOP}:
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_IGN)


def main() -> None:
    ignore_signals()
    told = json.loads(os.environ[VARIABLE])
    # Where they lead now: a link that is put into their place later is not followed.
    folders = {folder: os.path.realpath(folder) for folder in told["folders"]}
    frames = Frames(bytes.fromhex(told["token"]))
    names: dict[str, Identity] = {}
    while data := os.read(0, 1 << 16):
        for name, identity in frames.feed(data):
            names[os.fsdecode(name)] = identity
    for path, identity in names.items():
        if (found := place(path, told["folders"])) is not None:
            remove(folders[found[0]], found[1], identity)
    for pattern in told["patterns"]:
        for match in matches(pattern):
            folder, last = os.path.split(match.rstrip("/"))
            remove(os.path.realpath(folder), [last])


if __name__ == "__main__":
    main()
