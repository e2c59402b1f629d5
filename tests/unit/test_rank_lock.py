"""The lock that vLLM's workers share."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path

import pytest

from mpspmd.vllm.lock import RankLock, lock_file, lock_name


@pytest.fixture
def name() -> Iterator[str]:
    name = lock_name()
    yield name
    Path(lock_file(name)).unlink(missing_ok=True)


def _add(name: str, path: str, times: int) -> None:
    """Reads a number and writes the next one: loses some unless nobody else does it meanwhile."""
    lock = RankLock(name)
    for _ in range(times):
        with lock, open(path, "r+") as file:
            number = int(file.read())
            file.seek(0)
            file.write(str(number + 1))


def test_only_one_process_at_a_time_holds_it(name: str, tmp_path: Path) -> None:
    path = f"{tmp_path}/number"
    with open(path, "w") as file:
        file.write("0")
    context = get_context("spawn")
    processes = [context.Process(target=_add, args=(name, path, 2000)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert Path(path).read_text() == "4000"


def test_without_its_name_it_still_locks(name: str) -> None:
    assert not Path(lock_file(name)).exists(), "nobody has opened it"
    lock = RankLock(name)
    Path(lock_file(name)).unlink()
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
