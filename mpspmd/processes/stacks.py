"""The stacks of a process's threads."""

from __future__ import annotations

import faulthandler
import fcntl
import os
import sys
import threading
import time
import traceback

from mpspmd.processes.process import Process
from mpspmd.processes.signals import STACK_SIGNAL
from mpspmd.transport.descriptor import Descriptor
from mpspmd.transport.segment import open_memory

_MAX_BYTES = 64 * 1024
_ANSWER_S = 0.2
_POLL_S = 0.005


def stacks_of_this_process() -> str:
    """The name and stack of each thread but the calling one. The main thread comes first, and in each stack
    the innermost call comes last."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    main = threading.main_thread().ident
    frames = sorted(sys._current_frames().items(), key=lambda item: item[0] != main)
    texts = []
    for ident, frame in frames:
        if ident == threading.get_ident():
            continue
        name = "MainThread" if ident == main else names.get(ident, f"thread {ident}")
        texts.append(f"{name}:\n{''.join(traceback.format_stack(frame))}")
    return "\n".join(texts)


class StackFile:
    """A file in memory, through which a rank tells its stacks though its main thread holds the GIL.

    The engine makes it, and the rank gets a copy when it starts. In the rank a signal handler of
    faulthandler writes the stacks. It needs no lock, and the innermost call comes first.
    """

    def __init__(self) -> None:
        self._file = Descriptor(open_memory("mpspmd-stacks"))
        # O_APPEND: the rank shares the file position, and writes to the start after the file was truncated.
        flags = fcntl.fcntl(self._file.fd, fcntl.F_GETFL)
        fcntl.fcntl(self._file.fd, fcntl.F_SETFL, flags | os.O_APPEND)

    def install_handler(self) -> None:
        """In the rank: from now on STACK_SIGNAL makes it write its stacks."""
        faulthandler.register(STACK_SIGNAL, file=self._file.fd, all_threads=True, chain=False)

    def write(self, text: str) -> None:
        """In the rank: why it exits, for the case that the control plane can't tell it."""
        os.write(self._file.fd, text.encode(errors="replace")[:_MAX_BYTES])

    def read(self) -> str:
        """In the engine: what the rank has written."""
        return os.pread(self._file.fd, _MAX_BYTES, 0).decode(errors="replace")

    def request(self, process: Process) -> str:
        """In the engine: the rank's stacks, or "" if it doesn't write any in time."""
        os.ftruncate(self._file.fd, 0)
        process.send_signal(STACK_SIGNAL)
        end = time.monotonic() + _ANSWER_S
        text, size = b"", -1
        # The rank writes in pieces. The text is complete when it has stopped growing.
        while time.monotonic() < end and not 0 < size == len(text):
            size = len(text)
            time.sleep(_POLL_S)
            text = os.pread(self._file.fd, _MAX_BYTES, 0)
        return text.decode(errors="replace").replace("Current thread", "MainThread,")

    def close(self) -> None:
        self._file.close()
