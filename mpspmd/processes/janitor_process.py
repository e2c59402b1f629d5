"""The janitor's process: collects names of files, and removes those files when its input ends.

It also writes dumps of the run's memory: when it is told to, and when its input ends although the run was
not shut down. It runs as a script, `python -I -S janitor_process.py`, and imports nothing but the standard
library. Names come through standard input, in frames. It skips whatever else is written there.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import struct
import time
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

VARIABLE = "_MPSPMD_JANITOR"
"""The environment variable that holds the settings, as JSON:

token: what each frame begins with, in hex. Each run has a new one, so no other text looks like a frame.
folders: the names that come through standard input must lie in one of these.
patterns: absolute paths or shell patterns of more that is to be removed, anywhere.
dump: what dumps are made of, if any are; see `Dump`.
"""
TOKEN_BYTES = 16
_SIZES = struct.Struct("=HQQ")  # bytes of the name; device and inode, or zeros
_CHECK = struct.Struct("=I")  # CRC-32 of the frame up to here
MAX_NAME_BYTES = 4096 - TOKEN_BYTES - _SIZES.size - _CHECK.size
"""So a frame has at most PIPE_BUF bytes, and one write of it stays in one piece in the pipe."""
DUMP_MAGIC = b"mpspmd dump 1\n"
"""A dump begins with it. A line of JSON follows, and then the bytes of the status page and the recorder."""
WRITE_DUMP = b"\0dump\0"
"""Begins a frame that has a dump written: a path and a cause follow, with a zero byte between them. No name
of a file has a zero byte."""
SHUT_DOWN = b"\0shut down"
"""The frame that says that the run ends as it should."""
LOCK = "lock"
"""The file in a run's folder that the run keeps locked; see run_dir.py."""
_KILLED = "the processes of the run have ended without a shutdown: they were killed"
_RECORD_BYTES = 64
Identity = tuple[int, int]
"""A file's device and inode."""
_UNKNOWN: Identity = (0, 0)


def frame(token: bytes, name: bytes, identity: Identity = _UNKNOWN) -> bytes:
    """One name, for one write. With an identity only the file is removed that has this identity."""
    head = token + _SIZES.pack(len(name), *identity) + name
    return head + _CHECK.pack(zlib.crc32(head))


class Frames:
    """Finds the frames in a stream of bytes."""

    def __init__(self, token: bytes) -> None:
        self._token = token
        self._data = b""

    def feed(self, data: bytes) -> Iterator[tuple[bytes, Identity]]:
        """Yields the names that are complete now. Drops what is no frame: the buffer stays small."""
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
                # The rest is still to come, unless another frame follows: then the writer was killed.
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
    """The folder that `name` lies in, and the path from there as a list; None if it lies in none of them.

    Nothing in a name is a pattern. A name with `..` lies in no folder.
    """
    for folder in folders:
        inside = folder.rstrip("/") + "/"
        if name.startswith(inside) and "\0" not in name:
            steps = name[len(inside) :].split("/")
            if not {"", ".", ".."} & set(steps):
                return folder, steps
    return None


def remove(folder: str, steps: Sequence[str], identity: Identity = _UNKNOWN) -> None:
    """Removes a file, or a folder with its contents, if this user owns it.

    Follows no symbolic link below `folder`. If the name itself is a link, the link is removed.
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
        remove_tree(name, fd)
    else:
        os.unlink(name, dir_fd=fd)


def remove_tree(name: str, parent: int | None = None) -> None:
    """Removes a folder as well as it can, its lock last: whoever does this may be killed within, and the
    lock shows the next run that it may go on."""
    with contextlib.suppress(OSError):
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(name, flags, dir_fd=parent)
        try:
            for entry in set(os.listdir(fd)) - {LOCK}:
                _remove_entry(entry, fd)
            if os.listdir(fd) == [LOCK]:
                _remove_entry(LOCK, fd)
        finally:
            os.close(fd)
        os.rmdir(name, dir_fd=parent)


def _remove_entry(name: str, folder: int) -> None:
    try:
        os.unlink(name, dir_fd=folder)
    except IsADirectoryError:
        import shutil

        shutil.rmtree(name, ignore_errors=True, dir_fd=folder)
    except OSError:
        pass  # others may be removable


def matches(pattern: str) -> list[str]:
    """The paths that match a pattern now. A pattern that is an existing path matches only itself."""
    if os.path.lexists(pattern):
        return [pattern]
    import glob

    return glob.glob(pattern)


class Dump:
    """Writes the memory of the run into files."""

    def __init__(self, settings: dict[str, Any]) -> None:
        """`settings`: folder; status and recorder: descriptors; records_at: where the recorder's records
        begin; about: what is put into the header as it is, among it the engine's `pid`; answers: the
        descriptor of the pipe for answers to `take`: the file's name, a space, why there is none, a
        newline."""
        self._settings = settings
        self.is_complete = False
        """The run's failure has been written, or there was none."""

    def take(self, frame: bytes) -> None:
        if frame == SHUT_DOWN:
            self.is_complete = True
            return
        path, _, cause = frame[len(WRITE_DUMP) :].partition(b"\0")
        failed, text = cause[:1] == b"!", cause[1:].decode(errors="replace")
        why = self.write(os.fsdecode(path), text)
        if failed and not why:
            self.is_complete = True
        with contextlib.suppress(OSError):  # the engine has ended meanwhile
            answer = os.path.basename(path) + b" " + why.encode() + b"\n"
            os.write(self._settings["answers"], answer)

    def write_last(self) -> None:
        """The input has ended."""
        if not self.is_complete:
            name = dump_name(self._settings["about"]["pid"])
            self.write(os.path.join(self._settings["folder"], name), _KILLED)

    def write(self, path: str, cause: str) -> str:
        """Makes a new file that only this user can read. Returns "", or why there is none: there is such
        a file already, or space or memory is lacking."""
        try:
            status, recorder = _bytes_of(self._settings["status"]), self._recorder()
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(path, flags, 0o600)
        except (OSError, MemoryError) as error:
            return _why(error)
        about = self._settings["about"] | {
            "time": time.time(),
            "monotonic": time.monotonic(),
            "cause": cause,
            "bytes": {"status": len(status), "recorder": len(recorder)},
        }
        try:
            with open(fd, "wb") as file:
                file.write(DUMP_MAGIC + json.dumps(about).encode() + b"\n" + status + recorder)
        except (OSError, MemoryError) as error:
            with contextlib.suppress(OSError):
                os.unlink(path)
            return _why(error)
        return ""

    def _recorder(self) -> bytearray:
        """Ranks may still write. A record that changed meanwhile is marked as incomplete: an odd number."""
        before = _bytes_of(self._settings["recorder"])
        after = bytearray(_bytes_of(self._settings["recorder"]))
        for at in range(self._settings["records_at"], len(after), _RECORD_BYTES):
            if before[at : at + _RECORD_BYTES] != after[at : at + _RECORD_BYTES]:
                after[at] |= 1
        return after


def dump_name(pid: int) -> str:
    """Of a dump that is written now."""
    now = time.time()
    when = time.strftime("%Y%m%dT%H%M%S", time.localtime(now))
    return f"mpspmd-{pid}-{when}.{int(now % 1 * 1000):03}.dump"


def _why(error: OSError | MemoryError) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else "memory is lacking"


def _bytes_of(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size, 0)


def main() -> None:
    # Signals to groups of processes, and signals about limits, must not end the janitor.
    for number in signal.valid_signals() - {signal.SIGCHLD}:
        with contextlib.suppress(OSError):  # SIGKILL and SIGSTOP
            signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    settings = json.loads(os.environ[VARIABLE])
    # The folders as they are now: a symbolic link that replaces one later is not followed.
    folders = {folder: os.path.realpath(folder) for folder in settings["folders"]}
    frames = Frames(bytes.fromhex(settings["token"]))
    names: dict[str, Identity] = {}
    dump = Dump(settings["dump"]) if settings.get("dump") else None
    while data := os.read(0, 1 << 16):
        for name, identity in frames.feed(data):
            if not name.startswith(b"\0"):
                names[os.fsdecode(name)] = identity
            elif dump is not None:
                dump.take(name)
    if dump is not None:
        dump.write_last()
    for path, identity in names.items():
        if (found := place(path, settings["folders"])) is not None:
            remove(folders[found[0]], found[1], identity)
    for pattern in settings["patterns"]:
        for match in matches(pattern):
            folder, last = os.path.split(match.rstrip("/"))
            remove(os.path.realpath(folder), [last])


if __name__ == "__main__":
    main()
