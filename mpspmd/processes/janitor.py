"""Janitor: removes a run's files when the last of its processes is gone, however it went."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import subprocess
from collections.abc import Sequence
from typing import Any

from mpspmd.errors import ConfigError
from mpspmd.processes import janitor_process
from mpspmd.processes.ended import Ended
from mpspmd.processes.interpreter import interpreter
from mpspmd.processes.janitor_process import MAX_NAME_BYTES, frame, place
from mpspmd.processes.signals import signals_deferred
from mpspmd.transport.descriptor import Descriptor, pipe_above_standard

logger = logging.getLogger(__name__)

# Starts the janitor in the background. So it is nobody's child, and in a session of its own: killing a
# process group or a process tree spares it. Signals to whole groups are ignored before it begins: what is
# ignored stays so. Prints its number.
_SCRIPT = """
trap '' HUP INT QUIT PIPE ALRM TERM USR1 USR2
exec 3<&0
"$@" <&3 3<&- >/dev/null 2>&1 &
echo $!
"""

_ended: list[Ended] = []
"""Those of which this process may be the parent."""


class Janitor:
    """The engine makes it; each rank gets a copy with its process. Any thread.

    vLLM's front end ends a server by SIGKILL to the whole tree of processes: nobody in it can clean up.
    """

    def __init__(self, folders: Sequence[str], patterns: Sequence[str] = ()) -> None:
        """`remove_at_end` takes what lies in one of `folders`. `patterns` are paths or shell patterns, of
        any place, that are removed as well. ConfigError when there is no interpreter to run."""
        self._folders = [os.path.abspath(folder) for folder in folders]
        python = interpreter()
        _reap_ended()
        self._token = secrets.token_bytes(janitor_process.TOKEN_BYTES)
        told = {
            "token": self._token.hex(),
            "folders": self._folders,
            "patterns": [os.path.abspath(pattern) for pattern in patterns],
        }
        read, write = pipe_above_standard()
        self._end = Descriptor(write)
        script = os.path.abspath(janitor_process.__file__)
        self._process: Ended | None = None
        try:
            # A KeyboardInterrupt that subprocess meets in its own cleaning up would be lost.
            with signals_deferred():
                done = subprocess.run(
                    ["/bin/sh", "-c", _SCRIPT, "sh", python, "-I", "-S", script],
                    stdin=read,
                    env=os.environ | {janitor_process.VARIABLE: json.dumps(told)},
                    cwd="/",
                    start_new_session=True,
                    check=True,
                    stdout=subprocess.PIPE,
                )
            self._process = Ended.of(int(done.stdout))
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            logger.warning("no janitor: a killed run may leave files behind (%s)", error)
        finally:
            os.close(read)

    def remove_at_end(self, name: str) -> None:
        """`name` is the path of a file or a folder of this run's, no pattern.

        If it exists already, that very file is meant, and not one that gets its name later. ConfigError
        unless it lies in one of the folders.
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
            os.write(self._end.fd, frame(self._token, encoded, identity))

    def close(self) -> None:
        """This process is done with the run."""
        self._end.close()
        if self._process is not None:
            _ended.append(self._process)
            self._process = None
        _reap_ended()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_process": None}


def _reap_ended() -> None:
    """Janitors become children of process 1, which in a container may be this program."""
    _ended[:] = [process for process in _ended if not process.reap()]
