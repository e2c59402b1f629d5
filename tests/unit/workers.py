"""The workers of these tests. A module of its own: every rank imports it, and nothing else of them."""

from __future__ import annotations

import enum
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import mpspmd
from mpspmd.rank.worker import LATER


class Name(enum.StrEnum):
    """Names of methods."""

    RANK = "rank"


class OnlyHere:
    """A callable in this process, and a number in any other."""

    def __call__(self, worker: Any) -> None: ...

    def __reduce__(self) -> Any:
        return int, (5,)


class Calculator(mpspmd.Worker):
    """Answers all kinds of calls."""

    def __init__(self, ctx: mpspmd.RankContext, start: int = 0) -> None:
        super().__init__(ctx)
        self.total = start

    def rank(self) -> int:
        return self.ctx.rank

    def add(self, amount: int, *, times: int = 1) -> int:
        self.total += amount * times
        return self.total

    def execute_model(self, *args: Any, **kwargs: Any) -> tuple[int, tuple[Any, ...]]:
        return self.ctx.rank, (*args, kwargs) if kwargs else args

    def echo(self, value: Any) -> Any:
        return value

    def size(self, value: Any) -> int:
        return len(value)

    def sleep(self, seconds: float, value: Any = None) -> Any:
        time.sleep(seconds)
        return value

    def wait_for(self, path: str, value: Any = None, rank: int | None = None) -> Any:
        """Returns when the file is there. Where `rank` is given, only that rank waits for it."""
        if rank in (None, self.ctx.rank):
            wait_for(path)
        return value

    def touch(self, path: str) -> None:
        with open(path, "a"):
            pass

    def sleep_on(self, rank: int, seconds: float, value: Any = None) -> Any:
        if self.ctx.rank == rank:
            time.sleep(seconds)
        return value

    def process(self) -> tuple[int, int]:
        return os.getpid(), os.getppid()

    def digest(self) -> str | None:
        return self.ctx.request_digest()

    def fail(self, message: str) -> None:
        raise ValueError(message)

    def fail_on(
        self, rank: int, message: str, others_take: float = 0.0, others_wait_for: str = ""
    ) -> int:
        if self.ctx.rank == rank:
            raise ValueError(message)
        time.sleep(others_take)
        if others_wait_for:
            wait_for(others_wait_for)
        return self.ctx.rank

    def fail_unpicklably(self) -> None:
        raise Unpicklable(threading.Lock())

    def fail_without_words(self) -> None:
        raise Speechless

    def leave(self, code: int) -> None:
        sys.exit(code)

    def lock(self) -> Any:
        return threading.Lock()

    def unbuildable(self) -> Any:
        return Unbuildable()

    def unsayable(self) -> Any:
        return Unsayable()

    def run_dir(self) -> str:
        return self.ctx.run_dir

    def environment(self, name: str) -> str | None:
        return os.environ.get(name)

    def sum_over_ranks(self) -> float:
        import torch
        import torch.distributed as dist

        self.ctx.init_process_group()
        numbers = torch.tensor([self.ctx.rank + 1.0], device=self.ctx.device)
        dist.all_reduce(numbers)
        dist.destroy_process_group()
        return float(numbers)


def wait_for(path: str) -> None:
    end = time.monotonic() + 30
    while not os.path.exists(path):
        if time.monotonic() > end:
            raise TimeoutError(f"{path} has not been made within 30 s")
        time.sleep(0.001)


class Shy(Calculator):
    """Its rank 0 takes long to find out that a method is missing."""

    def __getattr__(self, name: str) -> Any:
        if self.__dict__["ctx"].rank == 0:
            time.sleep(0.3)
        raise AttributeError(name)


class Stillborn(mpspmd.Worker):
    """Can't be made: how says what its constructor does, on the given ranks. If there is a folder, they do
    it when all of them have written a file there, so that none is much later than another."""

    def __init__(
        self, ctx: mpspmd.RankContext, how: str, ranks: tuple[int, ...], folder: str = ""
    ) -> None:
        super().__init__(ctx)
        if ctx.rank not in ranks:
            return
        if folder:
            Path(folder, str(ctx.rank)).touch()
            while len(os.listdir(folder)) < len(ranks):
                time.sleep(0.005)
        if how == "raise":
            raise RuntimeError(f"no weights for rank {ctx.rank}")
        if how == "exit":
            sys.exit(7)
        if how == "die":
            os._exit(7)
        time.sleep(60)


class Tidy(Calculator):
    """Leaves a file when it shuts down, and takes its time, or waits for a file."""

    def __init__(
        self, ctx: mpspmd.RankContext, folder: str, seconds: float = 0.0, path: str = ""
    ) -> None:
        super().__init__(ctx)
        self._folder = folder
        self._seconds = seconds
        self._path = path

    def shutdown(self) -> None:
        time.sleep(self._seconds)
        if self._path:
            wait_for(self._path)
        with open(f"{self._folder}/{self.ctx.rank}", "a") as file:
            file.write("shut down\n")


class Deferring(Calculator):
    """Finishes its replies in a thread of their own."""

    reply_thread = True

    def __init__(self, ctx: mpspmd.RankContext, broken: bool = False) -> None:
        super().__init__(ctx)
        self._broken = broken
        self._name = ""

    def start_reply_thread(self) -> None:
        if self._broken:
            raise RuntimeError("this reply thread can't start")
        self._name = threading.current_thread().name

    def finish_reply(self, result: Any) -> Any:
        if isinstance(result, float):
            time.sleep(result)
        if isinstance(result, Path):
            wait_for(str(result))
        if result == "unfinishable":
            raise ValueError("this result can't be finished")
        if result == "speechless":
            raise Speechless
        return result, threading.current_thread().name == self._name != "MainThread"


class Unpicklable(Exception):
    """Holds what no pickle can."""


class Speechless(Exception):
    """Has no message, and fails when asked for one."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


class Unsayable:
    """Can't be pickled, and the reason can't be printed."""

    def __reduce__(self) -> Any:
        raise Speechless


class Unbuildable:
    """Can be pickled anywhere, and rebuilt nowhere."""

    def __reduce__(self) -> Any:
        return _refuse, ()


def _refuse() -> None:
    raise RuntimeError("this can't be rebuilt")


class Unreducible:
    """Fails when pickled, in a way of its own."""

    def __reduce__(self) -> Any:
        raise ValueError("a reason of its own")


class Stepping(Calculator):
    """Steps of two calls: the first has no reply."""

    def first(self, value: Any = None, fails_on: int | None = None) -> Any:
        self.value = value
        if self.ctx.rank == fails_on:
            raise ValueError(f"the first half of {value}")
        return LATER

    def last(self, rank_0_waits_for: str = "") -> Any:
        if self.ctx.rank == 0 and rank_0_waits_for:
            wait_for(rank_0_waits_for)
        return self.value
