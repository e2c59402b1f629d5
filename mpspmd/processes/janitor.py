"""Janitor: removes a run's files when the run's last process has ended, even if all were killed."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import secrets
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing import spawn
from typing import Any, NamedTuple

from mpspmd.errors import ConfigError
from mpspmd.notice import notice
from mpspmd.processes import janitor_process
from mpspmd.processes.janitor_process import (
    MAX_NAME_BYTES,
    SHUT_DOWN,
    WRITE_DUMP,
    dump_name,
    frame,
    place,
)
from mpspmd.processes.pidfd import wait_readable
from mpspmd.processes.proc import read_stat
from mpspmd.processes.signals import GROUP_SIGNALS, signals_deferred
from mpspmd.threads import signals_blocked
from mpspmd.transport.descriptor import Descriptor, pipe_above_standard

logger = logging.getLogger(__name__)

# Makes the janitor an orphan, so that nobody who kills the tree of processes finds it, and prints its pid.
# The janitor holds neither standard output nor standard error open: others may wait for their end.
_START = """
import os, sys
if pid := os.fork():
    print(pid)
else:
    os.dup2(0, 1)
    os.dup2(0, 2)
    os.execv(sys.argv[1], sys.argv[1:])
"""

_MAX_DUMPS = 8
"""Of one run: each has as many bytes as the recorder."""
_DUMP_S = 1.0
"""How long an error or a report waits for its dump."""


class _Orphan(NamedTuple):
    """A process that the kernel has made a child of process 1, which may be this program.

    Known by its pid and the time of its start, because another process may get the pid later.
    """

    pid: int
    began: int

    @classmethod
    def running(cls, pid: int) -> _Orphan | None:
        """None when there is no such process, or when /proc doesn't show it."""
        stat = read_stat(pid)
        return cls(pid, stat.began) if stat else None

    def reap(self) -> bool:
        """Reaps it if it has ended and is this process's child. Returns whether nothing is left to reap."""
        stat = read_stat(self.pid)
        if stat is None or stat.began != self.began:
            return True
        # No other process can get this pid before the parent, which is this process, has reaped it.
        if stat.state == "Z" and stat.parent == os.getpid():
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, os.WNOHANG)
            return True
        return False


_closed: list[_Orphan] = []
"""The janitors of closed runs. If this is process 1, it must reap them."""


@dataclasses.dataclass(frozen=True)
class DumpSource:
    """What dumps are made of; see `janitor_process.Dump`."""

    folder: str
    status: int
    recorder: int
    records_at: int
    about: dict[str, Any]


class _Dumps:
    """Has the janitor write dumps. Any thread of the engine."""

    def __init__(self, source: DumpSource, answers: int) -> None:
        """`answers`: the read end of the pipe through which the janitor says whether it has written a dump.
        This object owns it."""
        self._source = source
        self._answers = Descriptor(answers)
        self._n = 0
        # The handler of a signal that comes while this thread waits may close the run.
        self.lock = threading.RLock()

    def write(self, send: Callable[[bytes], None], cause: str, *, failed: bool) -> str | None:
        with self.lock:
            if self._n >= _MAX_DUMPS or self._answers.fd < 0:
                return None
            self._n += 1
            path = os.path.join(self._source.folder, dump_name(self._source.about["pid"]))
            text = ("!" if failed else " ") + cause
            request = WRITE_DUMP + os.fsencode(path) + b"\0" + text.encode(errors="replace")
            try:
                send(request[:MAX_NAME_BYTES])
                why = self._wait_for(os.path.basename(path))
            except OSError:
                why = "the janitor has ended"
        if why:
            notice(logger.warning, "no dump %s: %s", path, why)
        return None if why else path

    def _wait_for(self, name: str) -> str:
        """Why this dump isn't there; "" if it is. OSError if the janitor has ended."""
        deadline = time.monotonic() + _DUMP_S
        while wait_readable(self._answers.fd, max(0.0, deadline - time.monotonic())):
            data = os.read(self._answers.fd, 1 << 16)
            if not data:
                raise BrokenPipeError
            for line in data.decode(errors="replace").splitlines():
                about, _, why = line.partition(" ")
                if about == name:  # otherwise it is a late answer about an earlier dump
                    return why
        return f"it wasn't written within {_DUMP_S:g} s"

    def close(self) -> None:
        with self.lock:  # so that no other thread reads from the descriptor
            self._answers.close()


class Janitor:
    """The engine makes it, and each rank gets a copy when it starts. Any thread.

    The janitor is a process of its own, because a run may end without cleaning up: vLLM's front end, for
    example, ends a server by SIGKILL to the whole tree of processes. So the janitor belongs to no tree and
    to no process group of the run. It works when all copies of its pipe's write end are closed.
    """

    def __init__(
        self, folders: Sequence[str], patterns: Sequence[str] = (), dump: DumpSource | None = None
    ) -> None:
        """Starts the process. It logs a warning if it can't.

        `remove_at_end` accepts only what lies in one of `folders`. `patterns` are paths or shell patterns,
        anywhere, of more that is to be removed. `dump`: what it writes when the run fails.
        Raises ConfigError if this user can't run the interpreter.
        """
        self._folders = [os.path.abspath(folder) for folder in folders]
        python = _interpreter()
        _reap_closed()
        self._token = secrets.token_bytes(janitor_process.TOKEN_BYTES)
        settings: dict[str, Any] = {
            "token": self._token.hex(),
            "folders": self._folders,
            "patterns": [os.path.abspath(pattern) for pattern in patterns],
        }
        read, write = pipe_above_standard()
        self._pipe = Descriptor(write)
        janitors_ends = [read]
        inherited: tuple[int, ...] = ()
        script = os.path.abspath(janitor_process.__file__)
        self._process: _Orphan | None = None
        self._dumps: _Dumps | None = None
        try:
            if dump is not None:
                answers, answers_end = pipe_above_standard()
                janitors_ends.append(answers_end)
                inherited = (dump.status, dump.recorder, answers_end)
                self._dumps = _Dumps(dump, answers)
                settings["dump"] = vars(dump) | {"answers": answers_end}
            # The janitor inherits that these signals are blocked, and later ignores them. They are deferred
            # here, because subprocess swallows a KeyboardInterrupt that comes while it cleans up.
            with signals_deferred(), signals_blocked(GROUP_SIGNALS):
                started = subprocess.run(
                    [python, "-I", "-S", "-c", _START, python, "-I", "-S", script],
                    stdin=read,
                    env=os.environ | {janitor_process.VARIABLE: json.dumps(settings)},
                    cwd="/",
                    start_new_session=True,
                    pass_fds=inherited,
                    check=True,
                    stdout=subprocess.PIPE,
                )
            self._process = _Orphan.running(int(started.stdout))
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            logger.warning("no janitor: a killed run may leave files behind (%s)", error)
        finally:
            for fd in janitors_ends:
                os.close(fd)

    def remove_at_end(self, name: str) -> None:
        """Has a file or folder of this run removed when the run's last process has ended.

        `name` is its path, and no pattern. If it exists now, only that very file will be removed, and no
        later one of the same name. Raises ConfigError if it lies in none of the folders.
        """
        encoded = os.fsencode(name)
        if place(name, self._folders) is None or len(encoded) > MAX_NAME_BYTES:
            raise ConfigError(
                f"{name!r} can't be removed at the end: it must be the absolute path, of at most "
                f"{MAX_NAME_BYTES} bytes and without '..', of something within "
                f"{' or '.join(self._folders)}; other files may be given to the engine, as remove_at_end"
            )
        identity = (0, 0)
        with contextlib.suppress(OSError):
            status = os.lstat(name)
            identity = status.st_dev, status.st_ino
        with contextlib.suppress(OSError):
            os.write(self._pipe.fd, frame(self._token, encoded, identity))

    def write_dump(self, cause: str, *, failed: bool) -> str | None:
        """Has the run's memory written into a file now, and waits for that, up to a second. `failed`: the
        run is over, and no later dump is needed.

        Returns the path of the complete file. None if there are no dumps, or have been too many, or if it
        isn't there; then the log says why.
        """
        if self._dumps is None or self._process is None:
            return None
        return self._dumps.write(self._send, cause, failed=failed)

    def _send(self, text: bytes) -> None:
        os.write(self._pipe.fd, frame(self._token, text))

    def shut_down(self) -> None:
        """The run ends as it should, or its failure has been written: no more dump is needed."""
        if self._dumps is not None:
            with contextlib.suppress(OSError):
                self._send(SHUT_DOWN)

    def close(self) -> None:
        """This process makes no more files for the run."""
        self._pipe.close()
        if self._dumps is not None:
            self._dumps.close()
        if self._process is not None:
            _closed.append(self._process)
            self._process = None
        _reap_closed()

    def close_copies(self) -> None:
        """In a process forked from the engine's."""
        if self._dumps is not None:
            self._dumps.lock = threading.RLock()  # another thread of the parent may have held it
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_process": None, "_dumps": None}


def _interpreter() -> str:
    """The path of the Python that runs the janitor, and, by multiprocessing, the ranks. ConfigError if this
    user can't run it."""
    path = os.fsdecode(spawn.get_executable() or "")
    if os.path.isfile(path) and os.access(path, os.X_OK):
        return path
    raise ConfigError(
        f"the Python interpreter {path!r} can't be run by this user, and ranks need one: name one that can "
        "with multiprocessing.set_executable(path), before the engine is made; it is sys.executable "
        "otherwise"
    )


def _reap_closed() -> None:
    _closed[:] = [process for process in _closed if not process.reap()]
