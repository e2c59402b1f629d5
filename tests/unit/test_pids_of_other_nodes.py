"""A process's number on another machine is never shown as if it were one of this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from mpspmd import RuntimeConfig
from mpspmd._ring import Ring, StatusPage
from mpspmd.cli import top
from mpspmd.observe import dump
from mpspmd.observe.stats import read_stats
from mpspmd.observe.watch import EngineView, RankView
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
