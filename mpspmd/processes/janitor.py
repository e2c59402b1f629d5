"""Janitor: removes a run's files when the run's last process has ended, even if all were killed."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import secrets
import subprocess
from collections.abc import Sequence
from typing import Any

from mpspmd.errors import ConfigError
from mpspmd.processes import janitor_process
from mpspmd.processes.interpreter import interpreter
from mpspmd.processes.janitor_process import (
    MAX_NAME_BYTES,
    SHUT_DOWN,
    WRITE_DUMP,
    dump_name,
    frame,
    place,
)
from mpspmd.processes.orphan import Orphan
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

_closed: list[Orphan] = []
"""The janitors of closed runs. If this is process 1, it must reap them."""


_MAX_DUMPS = 8
"""Of one run: each has as many bytes as the recorder."""


@dataclasses.dataclass(frozen=True)
class DumpSource:
    """What dumps are made of; see `janitor_process.Dump`."""

    folder: str
    status: int
    recorder: int
    records_at: int
    about: dict[str, Any]


class Janitor:
    """The engine makes it, and each rank gets a copy when it starts. Any thread.

    The janitor is a process of its own, because a run may end without cleaning up: vLLM's front end, for
    example, ends a server by SIGKILL to the whole tree of processes. So the janitor belongs to no tree and
    to no process group of the run. It works when all copies of its pipe's write end are closed.
    """

    def __init__(
        self,
        folders: Sequence[str],
        patterns: Sequence[str] = (),
        dump: DumpSource | None = None,
    ) -> None:
        """Starts the process. It logs a warning if it can't.

        `remove_at_end` accepts only what lies in one of `folders`. `patterns` are paths or shell patterns,
        anywhere, of more that is to be removed. `dump`: what it writes when the run fails.
        Raises ConfigError if this user can't run the interpreter.
        """
        self._folders = [os.path.abspath(folder) for folder in folders]
        python = interpreter()
        _reap_closed()
        self._token = secrets.token_bytes(janitor_process.TOKEN_BYTES)
        settings = {
            "token": self._token.hex(),
            "folders": self._folders,
            "patterns": [os.path.abspath(pattern) for pattern in patterns],
            "dump": dump and vars(dump),
        }
        self._dump = dump
        self._n_dumps = 0
        read, write = pipe_above_standard()
        self._pipe = Descriptor(write)
        script = os.path.abspath(janitor_process.__file__)
        self._process: Orphan | None = None
        try:
            # The janitor inherits that these signals are blocked, and later ignores them. They are deferred
            # here, because subprocess swallows a KeyboardInterrupt that comes while it cleans up.
            with signals_deferred(), signals_blocked(GROUP_SIGNALS):
                started = subprocess.run(
                    [python, "-I", "-S", "-c", _START, python, "-I", "-S", script],
                    stdin=read,
                    env=os.environ | {janitor_process.VARIABLE: json.dumps(settings)},
                    cwd="/",
                    start_new_session=True,
                    pass_fds=(dump.status, dump.recorder) if dump else (),
                    check=True,
                    stdout=subprocess.PIPE,
                )
            self._process = Orphan.running(int(started.stdout))
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            logger.warning("no janitor: a killed run may leave files behind (%s)", error)
        finally:
            os.close(read)

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
        """Has the run's memory written into a file now. `failed`: the run is over, and no later dump is
        needed. Returns the file's path; None if there are no dumps, or have been too many."""
        if self._dump is None or self._process is None or self._n_dumps >= _MAX_DUMPS:
            return None
        self._n_dumps += 1
        path = os.path.join(self._dump.folder, dump_name(self._dump.about["pid"]))
        text = ("!" if failed else " ") + cause
        name = WRITE_DUMP + os.fsencode(path) + b"\0" + text.encode(errors="replace")
        with contextlib.suppress(OSError):
            os.write(self._pipe.fd, frame(self._token, name[:MAX_NAME_BYTES]))
            return path
        return None

    def shut_down(self) -> None:
        """The run ends as it should, or its failure has been written: no more dump is needed."""
        if self._dump is not None:
            with contextlib.suppress(OSError):
                os.write(self._pipe.fd, frame(self._token, SHUT_DOWN))

    def close(self) -> None:
        """This process makes no more files for the run."""
        self._pipe.close()
        if self._process is not None:
            _closed.append(self._process)
            self._process = None
        _reap_closed()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_process": None}


def _reap_closed() -> None:
    _closed[:] = [process for process in _closed if not process.reap()]
