"""Janitor: removes a run's files when the last of its processes is gone, however it went."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess

from mpspmd.runtime.signals import signals_deferred
from mpspmd.transport.descriptor import Descriptor

logger = logging.getLogger(__name__)

# Reads names until every process that can write them is gone, then removes what is still there. Not a
# child of anybody's, and in a session of its own: killing a process group or a process tree spares it.
# Names may be patterns, so that they are expanded; only newlines separate them.
_SCRIPT = """
exec 3<&0
(
    trap '' INT TERM HUP
    IFS='
'
    names=
    while read -r name <&3; do names="$names$name$IFS"; done
    rm -rf -- $names
) >/dev/null 2>&1 &
"""


class Janitor:
    """The engine makes it; each rank gets a copy with its process. Any thread.

    vLLM's front end ends a server by SIGKILL to the whole tree of processes: nobody in it can clean up.
    """

    def __init__(self) -> None:
        read, write = os.pipe2(os.O_CLOEXEC)
        self._end = Descriptor(write)
        try:
            # A KeyboardInterrupt that subprocess meets in its own cleaning up would be lost.
            with signals_deferred():
                subprocess.run(
                    ["/bin/sh", "-c", _SCRIPT], stdin=read, start_new_session=True, check=True
                )
        except (OSError, subprocess.SubprocessError) as error:
            logger.warning("no janitor: a killed run may leave files behind (%s)", error)
        finally:
            os.close(read)

    def remove_at_end(self, name: str) -> None:
        """`name` is a path or a shell pattern."""
        with contextlib.suppress(OSError):
            os.write(self._end.fd, os.fsencode(name) + b"\n")

    def close(self) -> None:
        """This process is done with the run."""
        self._end.close()
