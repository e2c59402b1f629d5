"""A process's number on another machine is never shown as if it were one of this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from mpspmd import RuntimeConfig
from mpspmd._ring import Ring, StatusPage
from mpspmd.bridge.place import NodePlace
from mpspmd.bridge.remote import RemoteProcess
from mpspmd.cli import top
from mpspmd.engine.ranks import Ranks
from mpspmd.observe import dump
from mpspmd.observe.stats import read_stats
from mpspmd.observe.watch import EngineView, RankView
from mpspmd.processes import spawn
from mpspmd.transport.channel import ChannelSegments


@pytest.fixture
def segments() -> Iterator[ChannelSegments]:
    """Of a run of which rank 1 is on node 1."""
    segments = ChannelSegments.create(2, RuntimeConfig())
    page = StatusPage(segments.status.fd)
    page.line(0).open()
    page.line(1).paste(page.line(0).copy(), 1)
    yield segments
    segments.close()


def test_a_dump_names_the_node(segments: ChannelSegments) -> None:
    here, there = dump._places(os.pread(segments.status.fd, segments.status.size, 0), 0.0)
    assert here.startswith(f"rank 0 (pid {os.getpid()}): ")
    assert there.startswith(f"rank 1 on node 1 (pid {os.getpid()}): ")


def test_top_names_the_node(segments: ChannelSegments) -> None:
    capacity, tail, heads, _ = Ring.look(segments.request.fd)
    stats = read_stats(StatusPage(segments.status.fd), capacity, tail, heads)
    ranks = tuple(RankView(rank, 0.0, 0.0, None, None) for rank in stats.ranks)
    view = EngineView(1, "", 0, 0.0, 0.0, None, None, None, None, ranks)
    here, there = (top._cells(view, rank)["pid"] for rank in ranks)
    assert (here, there) == (str(os.getpid()), f"{os.getpid()} on node 1")


def test_the_engine_names_the_node_of_a_rank_that_it_had_to_kill(
    segments: ChannelSegments, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for grace in ("_TERM_GRACE_S", "_KILL_GRACE_S"):
        monkeypatch.setattr(spawn, grace, 0.01)
    page = StatusPage(segments.status.fd)
    read, bridges_end = os.pipe()
    remote: Any = SimpleNamespace(send=lambda message: None)
    place = NodePlace(0, 2, 1, "head", 7000)
    ranks = Ranks(2, RuntimeConfig(), page)
    ranks.processes = [RemoteProcess(1, place, read, page.line(1), remote)]
    ranks.end(0.01)
    ranks.close()
    os.close(bridges_end)
    assert f"ranks had to be killed: pids [{os.getpid()} on node 1];" in caplog.text
