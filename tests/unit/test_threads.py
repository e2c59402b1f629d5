"""Our threads leave signals to the main thread, and the user's code in them doesn't notice that."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from mpspmd import Engine
from mpspmd.exceptions.foreign import logged
from mpspmd.threads import start_thread

pytestmark = pytest.mark.timeout(30)

_ASKED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGCHLD", "SIGCONT")


def _blocked(status: str) -> set[str]:
    """Those of _ASKED that a thread or process blocks, of which this is /proc/…/status."""
    line = next(line for line in status.splitlines() if line.startswith("SigBlk:"))
    mask = int(line.split()[1], 16)
    return {name for name in _ASKED if mask >> (getattr(signal, name) - 1) & 1}


def _blocked_in_our_threads(worker: Any = None) -> dict[str, set[str]]:
    blocked = {}
    for thread in threading.enumerate():
        if thread.name.startswith("mpspmd-"):
            # An engine that was shut down doesn't wait for all of its threads.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                status = Path(f"/proc/self/task/{thread.native_id}/status").read_text()
                blocked[thread.name] = _blocked(status)
    return blocked


async def _answer(engine: Engine) -> Any:
    return await engine.execute_model_async(timeout=20)


def test_every_thread_of_the_engine_leaves_signals_to_the_main_thread(engine: Engine) -> None:
    import asyncio

    asyncio.run(_answer(engine))
    answered = threading.Event()
    future = engine.collective_rpc("sleep", (0.1,), non_block=True)
    future.add_done_callback(lambda done: answered.set())
    assert answered.wait(20)
    threads = _blocked_in_our_threads()
    assert {"mpspmd-supervisor", "mpspmd-reader", "mpspmd-sender"} <= threads.keys()
    assert threads == {name: set(_ASKED) for name in threads}


def test_a_ranks_control_thread_leaves_signals_to_the_main_thread(engine: Engine) -> None:
    for threads in engine.collective_rpc(_blocked_in_our_threads, timeout=20):
        assert threads["mpspmd-control"] == set(_ASKED)


def test_a_process_that_a_callback_starts_blocks_no_signals() -> None:
    seen: list[set[str]] = []

    def call_back() -> None:
        with logged("the callback"):
            seen.append(_blocked(subprocess.check_output(["cat", "/proc/self/status"], text=True)))

    def run_twice() -> None:
        call_back()
        start_thread(call_back, name="inner").join()
        seen.append(_blocked(Path("/proc/thread-self/status").read_text()))

    start_thread(run_twice, name="outer").join()
    assert seen == [set(), set(), set(_ASKED)]


def test_a_callback_blocks_what_the_thread_blocks_that_has_made_its_own() -> None:
    seen: list[set[str]] = []

    def call_back() -> None:
        with logged("the callback"):
            seen.append(_blocked(Path("/proc/thread-self/status").read_text()))

    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        start_thread(call_back, name="thread").join()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert seen == [{"SIGUSR1"}]


def test_a_process_that_a_callback_forks_goes_on_taking_signals() -> None:
    statuses: list[int] = []

    def call_back() -> None:
        with logged("the callback"):
            if (pid := os.fork()) == 0:
                with logged("its own callback"):
                    pass
                os._exit(len(_blocked(Path("/proc/self/status").read_text())))
            statuses.append(os.waitpid(pid, 0)[1])

    start_thread(call_back, name="thread").join()
    assert statuses == [0]
