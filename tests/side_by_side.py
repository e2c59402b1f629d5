"""Several pytest processes at once, under pytest-xdist: none sees what the others' tests do.

Many tests check that a run leaves nothing behind. They compare all of /dev/shm and the folder for temporary
files before and after. So each process gets a /dev/shm and a temporary folder of its own.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import tempfile
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

_CLONE_NEWNS, _MS_REC, _MS_PRIVATE = 0x20000, 0x4000, 1 << 18
_MOST = 4
"""Processes. More of them wait for vLLM's tests, which run in one of them."""


def number_of_processes() -> int:
    """0, which stands for one process without pytest-xdist, where a process can't have its own /dev/shm."""
    cores = len(os.sched_getaffinity(0))
    command = ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/dev/shm"]
    try:
        allowed = subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        allowed = False
    # One more than cores: with two on two cores, these are idle for a tenth of the time.
    return min(cores + 1, _MOST) if allowed and cores > 1 else 0


def take_own_folders(temporary: str) -> str:
    """Returns where pytest's `tmp_path` is to be. `temporary` is for all temporary files.

    Must be called in the main thread, before it starts any process or thread of a test's.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.unshare(_CLONE_NEWNS))
    _check(libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None))
    _check(libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", 0, b"mode=1777"))
    os.environ["TMPDIR"] = tempfile.tempdir = temporary
    return os.path.join(temporary, "t")


def _check(result: int) -> None:
    if result:
        raise OSError(
            ctypes.get_errno(), f"no /dev/shm of its own: {os.strerror(ctypes.get_errno())}"
        )


_FIRST = ("vllm", "nodes", "native", "examples", "launch", "deployments", "faults", "docs")
"""The folders whose tests take longest. What is short comes last, so that all processes end together."""


def sort(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        folder = item.nodeid.split("/")[1]
        return _FIRST.index(folder) if folder in _FIRST else len(_FIRST)

    items.sort(key=place)


class Scheduling(LoadFileScheduling):
    """A file's tests run in one process, because they share engines.

    So do all tests with vLLM: they share a reference, and two vLLMs at once only slow each other down.
    """

    def __init__(self, config: pytest.Config, log: Any) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False  # the order is sort()'s

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return "tests/vllm" if file.startswith("tests/vllm/") else file
