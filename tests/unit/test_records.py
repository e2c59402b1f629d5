"""What is read of the recorder's memory: whole records, of the time that is asked for."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from recorded import MS, made

from mpspmd import RuntimeConfig
from mpspmd._ring import Recorder
from mpspmd.observe import records
from mpspmd.observe.records import parse
from mpspmd.processes import janitor_process
from mpspmd.processes.janitor_process import Dump
from mpspmd.transport.channel import ChannelSegments


@pytest.fixture
def memory() -> Iterator[tuple[bytearray, int]]:
    """A recorder with steps 1 to 4 of the engine, as bytes; and where its records begin."""
    segments = ChannelSegments.create(1, RuntimeConfig(record_steps=4))
    assert segments.recorder is not None
    data, begin = bytearray(Recorder(segments.recorder.fd).copy()), segments.records_at
    table = np.frombuffer(data, records._ENGINE, 4, begin)
    table["step"], table["sequence"] = [1, 2, 3, 4], 2
    yield data, begin
    segments.close()


def test_a_record_whose_writer_was_killed_while_it_wrote_is_left_out(
    memory: tuple[bytearray, int],
) -> None:
    data, begin = memory
    assert list(parse(bytes(data), 0).engine["step"]) == [1, 2, 3, 4]
    np.frombuffer(data, records._ENGINE, 4, begin)["sequence"][1] = 3
    assert list(parse(bytes(data), 0).engine["step"]) == [1, 3, 4]


def test_a_record_that_changes_while_a_dump_is_made_is_left_out(
    memory: tuple[bytearray, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, begin = memory
    before = bytes(data)
    np.frombuffer(data, records._ENGINE, 4, begin)["sent"][2] = 7
    readings = iter([before, bytes(data)])
    monkeypatch.setattr(janitor_process, "_bytes_of", lambda fd: next(readings))
    dump = Dump({"recorder": -1, "records_at": begin})
    assert list(parse(bytes(dump._recorder()), 0).engine["step"]) == [1, 2, 4]


def test_a_step_that_goes_on_is_kept_however_long_ago_it_began() -> None:
    found = made([(10, 0), (20, 30), (40, 50)], [(11, 12, 0, 0), (21, 22, 28, 29)]).since(35 * MS)
    assert list(found.engine["step"]) == [1, 3]
    assert list(found.ranks[0]["step"]) == [1]
