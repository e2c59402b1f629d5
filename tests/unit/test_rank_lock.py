"""The lock that vLLM's workers share."""

from __future__ import annotations

import os
import threading
from multiprocessing import get_context
from pathlib import Path

from mpspmd.vllm.lock import RankLock


def _add(lock: RankLock, path: str, times: int) -> None:
    """Reads a number and writes the next one: loses some unless nobody else does it meanwhile."""
    for _ in range(times):
        with lock, open(path, "r+") as file:
            number = int(file.read())
            file.seek(0)
            file.write(str(number + 1))


def test_only_one_process_at_a_time_holds_it(tmp_path: object) -> None:
    lock = RankLock()
    path = f"{tmp_path}/number"
    with open(path, "w") as file:
        file.write("0")
    context = get_context("spawn")
    processes = [context.Process(target=_add, args=(lock, path, 2000)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    lock.unlink()
    assert Path(path).read_text() == "4000"


def test_without_its_name_it_still_locks() -> None:
    lock = RankLock()
    assert os.path.exists(lock.file)
    lock.unlink()
    lock.unlink()
    assert not os.path.exists(lock.file)
    entered = threading.Event()

    def enter() -> None:
        with lock:
            entered.set()

    with lock:
        thread = threading.Thread(target=enter)
        thread.start()
        assert not entered.wait(0.05)
    thread.join(10)
    assert entered.is_set()
