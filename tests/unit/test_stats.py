"""What an engine says of itself and of its ranks."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from mpspmd import Engine
from mpspmd._ring import Ring, StatusPage

pytestmark = pytest.mark.timeout(60)


def test_idle_ranks_have_done_all_steps(engine: Engine, eventually: Any) -> None:
    engine.collective_rpc("rank")  # all earlier requests have been read
    before = engine.stats()
    for _ in range(10):
        engine.collective_rpc("rank")
    eventually(lambda: all(rank.phase == "waiting" for rank in engine.stats().ranks), "ranks wait")
    stats = engine.stats()
    assert stats.steps == before.steps + 10
    assert (stats.pid, stats.world_size, stats.ring_fill) == (os.getpid(), 2, 0.0)
    assert [rank.pid for rank in stats.ranks] == engine.pids
    for rank, earlier in zip(stats.ranks, before.ranks, strict=True):
        assert (rank.step, rank.lag_steps, rank.method) == (stats.steps, 0, "rank")
        assert rank.counters["requests"] == earlier.counters["requests"] + 10


def test_a_busy_rank_lags_behind_and_the_ring_fills(
    engine: Engine, eventually: Any, go: Path
) -> None:
    running = engine.collective_rpc("wait_for", args=(str(go), None, 1), non_block=True)
    eventually(lambda: _is_in(engine, 1, "wait_for"), "rank 1 waits for the file")
    waiting = [
        engine.collective_rpc("size", args=(bytes(200_000),), non_block=True) for _ in range(5)
    ]
    eventually(lambda: engine.stats().ranks[0].lag_steps == 0, "rank 0 is done")
    stats = engine.stats()
    assert (stats.ranks[1].phase, stats.ranks[1].lag_steps) == ("running", 5)
    assert stats.ring_fill == stats.ranks[1].unread_bytes / stats.ring_bytes > 0.2
    go.touch()
    for future in (running, *waiting):
        future.result()
    eventually(lambda: engine.stats().ring_fill == 0.0, "rank 1 has read everything")


def test_idle_time_grows_while_a_rank_waits_and_not_while_it_works(
    engine: Engine, eventually: Any, go: Path
) -> None:
    eventually(lambda: engine.stats().ranks[0].phase == "waiting", "rank 0 waits")
    before = engine.stats().ranks[0].idle_s
    eventually(lambda: engine.stats().ranks[0].idle_s > before + 0.2, "it has waited")
    future = engine.collective_rpc("wait_for", args=(str(go),), non_block=True)
    eventually(lambda: _is_in(engine, 0, "wait_for"), "rank 0 works")
    began, working = time.monotonic(), engine.stats().ranks[0].idle_s
    time.sleep(0.5)
    go.touch()
    future.result()
    after = engine.stats().ranks[0].idle_s
    took = time.monotonic() - began
    # Half a second isn't idle time, however long it all takes here.
    assert working <= after < working + took - 0.4


class TestFromOutside:
    """As another process reads it: through a descriptor that can't write."""

    def test_the_same_figures_are_read_through_read_only_descriptors(self, engine: Engine) -> None:
        engine.collective_rpc("rank")
        page_fd = _reopened(engine._ending._segments.status.fd)
        ring_fd = _reopened(engine._ending._segments.request.fd)
        try:
            page = StatusPage(page_fd)
            assert (page.n_ranks, page.engine_pid) == (2, os.getpid())
            assert page.steps == engine.stats().steps
            assert page.line(1).snapshot()["pid"] == engine.pids[1]
            capacity, tail, heads, _ = Ring.look(ring_fd)
            ring = engine._channel.request_ring
            assert (capacity, tail, heads) == (ring.capacity, ring.tail, ring.heads)
        finally:
            os.close(page_fd)
            os.close(ring_fd)

    def test_what_would_write_is_refused(self, engine: Engine) -> None:
        fd = _reopened(engine._ending._segments.status.fd)
        ring_fd = os.dup(engine._ending._segments.replies[0].fd)
        try:
            page = StatusPage(fd)
            line = page.line(0)
            for write in (line.open, line.replied, lambda: line.enter(1), lambda: page.sent(1)):
                with pytest.raises(ValueError, match="read-only"):
                    write()
            with pytest.raises(ValueError, match="read-only"):
                Ring(ring_fd, data_bell=page)
        finally:
            os.close(fd)
            os.close(ring_fd)

    def test_what_is_not_a_ring_is_refused(self, engine: Engine) -> None:
        with pytest.raises(ValueError, match="not a ring"):
            Ring.look(engine._ending._segments.status.fd)
        with pytest.raises(OSError):  # noqa: PT011 - whatever the system says
            Ring.look(10_000)


def _is_in(engine: Engine, rank: int, method: str) -> bool:
    seen = engine.stats().ranks[rank]
    return (seen.phase, seen.method) == ("running", method)


def _reopened(fd: int) -> int:
    return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
