"""What the native module has checked once it doesn't read again: others may write into the memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rings import CAPACITY, Scene, make_page, make_scene, payload_of

from mpspmd._ring import MAX_READERS, Inbox, Liveness, Ring, StatusPage
from mpspmd.errors import ChannelCorrupt

pytestmark = pytest.mark.timeout(30)

# In a process of its own: without the check it ends with a signal.
_AFTER_MAPPING = """
import os, struct
from rings import make_page, make_scene
from mpspmd._ring import Liveness
segment, page = make_page(2)
os.pwrite(segment.fd, struct.pack("<I", {n_ranks}), 12)  # the page's number of ranks
scene = make_scene()
def refused(action, text):
    try:
        action()
    except ValueError as error:
        assert text in str(error), error
    else:
        raise AssertionError
{action}
"""
_ACTIONS = {
    "a line": """
for rank in (2, 2000):
    refused(lambda: page.line(rank).snapshot(), "2 ranks")
page.line(1).snapshot()
assert page.n_ranks == 2
""",
    "the engine's liveness": """
liveness = Liveness.of_engine(page, (scene.ring,), 1, os.eventfd(0))
assert liveness.dead == []
liveness.close()
""",
    "a rank's liveness": """
refused(lambda: Liveness.of_rank(page, (scene.ring,), 1, 2000, 1.0), "rank 2000 of 2")
""",
    "the unmapping": """
del page
make_scene()
""",
}


@pytest.mark.parametrize("n_ranks", [0, 5000, 0xFFFFFFFF])
@pytest.mark.parametrize("action", _ACTIONS)
def test_a_page_that_is_written_over_harms_nobody_who_has_mapped_it(
    action: str, n_ranks: int
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _AFTER_MAPPING.format(n_ranks=n_ranks, action=_ACTIONS[action])],
        capture_output=True,
        text=True,
        timeout=25,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("offset", "form", "value"),
    [
        *((0, "<Q", 1), (8, "<I", 99), (12, "<I", 0), (12, "<I", 5000)),
        *((16, "<Q", 1 << 40), (16, "<Q", 0), (24, "<Q", 1 << 50), (24, "<Q", 0)),
    ],
)
def test_a_ring_whose_header_is_written_over_goes_on(
    scene: Scene, offset: int, form: str, value: int
) -> None:
    scene.overwrite(offset, form, value)
    for size in (3, 5000, CAPACITY // 3) * 4:
        scene.writer.send(1, 0, bytes(size), 5)
        assert payload_of(scene.inbox) == bytes(size)
    assert (scene.ring.capacity, scene.ring.n_readers) == (CAPACITY, 1)
    assert len(scene.ring.heads) == 1
    with pytest.raises(ValueError, match="1 readers"):
        scene.ring.mark_dead(1)


_FIRST_HEAD_AT = 6 * 128
"""In a ring's segment; csrc/ring/layout.h."""


@pytest.mark.parametrize("head", [8 * CAPACITY, (1 << 64) - 8])
def test_a_writer_that_finds_an_impossible_reader_says_so_and_overwrites_nothing(
    scene: Scene, head: int
) -> None:
    count = 0
    while scene.writer.try_send(1, count, bytes(1000)):
        count += 1
    scene.writer.abandon()
    scene.overwrite(_FIRST_HEAD_AT, "<Q", head)
    assert scene.ring.heads == (head,)
    with pytest.raises(ChannelCorrupt, match="a reader's position"):
        scene.writer.send(1, 0, bytes(1000), 5)
    for tag in range(count):
        message = scene.inbox.recv(5)
        assert message is not None
        assert message[2] == tag


_CUT = 1 << 32
"""With a good number added: one that would be good if it were cut to 32 bits."""


@pytest.mark.parametrize(
    "call",
    [
        lambda scene, page: Inbox((Ring(scene.segment.fd),), _CUT),
        lambda scene, page: scene.ring.poison((1 << 16) + 1, 0),
        lambda scene, page: scene.ring.poison(-1, 0),
        lambda scene, page: scene.ring.mark_dead(_CUT),
        lambda scene, page: Ring.format(scene.segment.fd, (1 << 64) + CAPACITY, 1),
        lambda scene, page: Ring.format(scene.segment.fd, CAPACITY, _CUT + 1),
        lambda scene, page: Ring.segment_bytes(CAPACITY, _CUT + 1),
        lambda scene, page: Ring.segment_bytes(CAPACITY, MAX_READERS + 1),
        lambda scene, page: Ring.segment_bytes((1 << 64) - 1, 1),
        lambda scene, page: Ring.look(_CUT + scene.segment.fd),
        lambda scene, page: StatusPage.format(scene.segment.fd, _CUT + 1, 0, 4),
        lambda scene, page: StatusPage.format(scene.segment.fd, MAX_READERS + 1, 0, 4),
        lambda scene, page: StatusPage.format(scene.segment.fd, 1, 1 << 64, 4),
        lambda scene, page: StatusPage.segment_bytes(_CUT + 1),
        lambda scene, page: StatusPage.segment_bytes(0),
        lambda scene, page: page.line(_CUT),
        lambda scene, page: page.line(0).enter(5),
        lambda scene, page: page.line(0).enter(-1),
        lambda scene, page: Liveness.of_engine(page, (scene.ring,), 1 << 16, 0),
        lambda scene, page: Liveness.of_rank(page, (scene.ring,), 1, _CUT, 1.0),
        lambda scene, page: Liveness.of_rank(page, (scene.ring,), 1 << 16, 0, 1.0),
    ],
)
def test_a_number_that_does_not_fit_is_refused_and_not_cut(call: Any) -> None:
    scene = make_scene()
    segment, page = make_page(1)
    with pytest.raises((OverflowError, ValueError)):
        call(scene, page)
    assert scene.ring.state == ("open", 0, 0)
    scene.writer.send(1, 0, b"usable")
    assert payload_of(scene.inbox) == b"usable"
    segment.close()
    scene.segment.close()
