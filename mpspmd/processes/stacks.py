"""Stacks: what the threads of another process are executing."""

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
_LOOK_S = 0.005


def stacks_of_this_process() -> str:
    """Each thread's name and stack, the main thread's first, the innermost call last; without the
    thread that asks."""
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
    """Where a rank's stacks are written that can't be had otherwise: its main thread holds the
    interpreter's lock in C. The engine makes it, the rank gets it with its process.

    It is memory without a name. The rank's part is a signal handler of the standard library's
    faulthandler, which needs no lock and writes the innermost call first.
    """

    def __init__(self) -> None:
        self._file = Descriptor(open_memory("mpspmd-stacks"))
        # The rank's descriptor shares the position; when the file has been emptied, it starts again.
        flags = fcntl.fcntl(self._file.fd, fcntl.F_GETFL)
        fcntl.fcntl(self._file.fd, fcntl.F_SETFL, flags | os.O_APPEND)

    def serve(self) -> None:
        """In the rank: from now on the signal is answered."""
        faulthandler.register(STACK_SIGNAL, file=self._file.fd, all_threads=True, chain=False)

    def tell(self, text: str) -> None:
        """In the rank, of which nothing else will be heard."""
        os.write(self._file.fd, text.encode(errors="replace")[:_MAX_BYTES])

    def read(self) -> str:
        """What is there now."""
        return os.pread(self._file.fd, _MAX_BYTES, 0).decode(errors="replace")

    def ask(self, process: Process) -> str:
        """The stacks of a process that serves this file; "" if none come."""
        os.ftruncate(self._file.fd, 0)
        process.send_signal(STACK_SIGNAL)
        end = time.monotonic() + _ANSWER_S
        text, size = b"", -1
        # Written in pieces: it is complete when it has stopped growing.
        while time.monotonic() < end and not 0 < size == len(text):
            size = len(text)
            time.sleep(_LOOK_S)
            text = os.pread(self._file.fd, _MAX_BYTES, 0)
        return text.decode(errors="replace").replace("Current thread", "MainThread,")

    def close(self) -> None:
        self._file.close()
