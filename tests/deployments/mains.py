"""A program in one file that sends what it defines in both directions; `README.md`'s, and more.

Run as a script, as a module, from standard input, and in other ways. `import mains` does nothing.
"""

from __future__ import annotations

import dataclasses
import functools
import multiprocessing
import sys
from typing import Any

import mpspmd

FACTOR = 10


@dataclasses.dataclass
class Point:
    x: int


class Wrong(Exception):
    def __init__(self, point: Point) -> None:
        super().__init__(f"wrong: {point.x}")
        self.point = point


def scaled(point: Point) -> Point:
    return Point(point.x * FACTOR)


class Worker(mpspmd.Worker):
    def __init__(self, ctx: mpspmd.RankContext, start: Point, lock: Any) -> None:
        super().__init__(ctx)
        self.start = start
        with lock:
            pass

    def execute_model(self, point: Point) -> Point:
        assert isinstance(point, Point)
        return scaled(Point(point.x + self.start.x))

    def fail(self, point: Point) -> None:
        raise Wrong(point)


def first(worker: Worker, *, point: Point) -> Any:
    return scaled(point), type(worker).__name__


def main(engine: mpspmd.Engine) -> None:
    for _ in range(2):
        reply = engine.execute_model(Point(1))
        assert (type(reply), reply.x) == (Point, 30), reply
    assert engine.collective_rpc(first, kwargs={"point": Point(2)}) == [(Point(20), "Worker")]
    assert engine.collective_rpc(functools.partial(first, point=Point(3)))[0][0] == Point(30)
    assert engine.collective_rpc(lambda worker: FACTOR) == [10]
    error = engine.collective_rpc("fail", args=(Point(4),), non_block=True).exception()
    assert type(error.__cause__) is Wrong, error
    assert type(error.__cause__.point) is Point
    print("ok")


if __name__ == "__main__":
    lock = multiprocessing.get_context("spawn").Lock()
    mpspmd.run(Worker, main, world_size=1, args=(Point(2), lock))
    sys.stdout.flush()
