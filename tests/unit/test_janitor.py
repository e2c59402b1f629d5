"""The janitor: when the last process of a run is killed, its files go, and nobody else's."""

from __future__ import annotations

import array
import fcntl
import os
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mpspmd.errors import ConfigError
from mpspmd.processes.janitor import Janitor
from mpspmd.processes.janitor_process import MAX_NAME_BYTES, TOKEN_BYTES, Frames, frame, place
from mpspmd.processes.proc import read_stat

SCRIPT = """
import os, signal, sys
from multiprocessing import get_context
from mpspmd.processes.janitor import Janitor

def hold(janitor):
    os.write(1, b"held\\n")
    signal.pause()

if __name__ == "__main__":
    folder, pattern, *names = sys.argv[1:]
    janitor = Janitor([folder], [pattern])
    for name in names:
        janitor.remove_at_end(name)
    get_context("spawn").Process(target=hold, args=(janitor,)).start()
    signal.pause()
"""
TOKEN = bytes(range(100, 100 + TOKEN_BYTES))


def wait_until(condition: Callable[[], bool], within_s: float = 20) -> bool:
    end = time.monotonic() + within_s
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


@pytest.fixture
def janitor(tmp_path: Path) -> Iterator[Janitor]:
    """Of a run whose files lie in `tmp_path / "ours"`."""
    (tmp_path / "ours").mkdir()
    made = Janitor([str(tmp_path / "ours")])
    yield made
    made.close()


def _end(janitor: Janitor, last: Path) -> None:
    """Waits until it has removed `last`, of which it is told last."""
    last.touch()
    janitor.remove_at_end(str(last))
    janitor.close()
    assert wait_until(lambda: not last.exists())


def test_files_go_when_the_last_process_is_killed_and_not_before(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    folder, other = tmp_path / "with a space", tmp_path / "kept"
    for path in (folder, other):
        path.mkdir()
        (path / "file").touch()
    patterned = [tmp_path / "run-1", tmp_path / "run-2"]
    for path in patterned:
        path.touch()
    process = subprocess.Popen(
        [sys.executable, script, tmp_path, tmp_path / "run-*", folder, tmp_path / "absent"],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    process.kill()
    process.wait()
    time.sleep(0.3)
    assert folder.exists(), "another process of the run still lives"
    os.killpg(process.pid, signal.SIGKILL)
    assert wait_until(lambda: not folder.exists())
    assert wait_until(lambda: not any(path.exists() for path in patterned))
    assert (other / "file").exists()


def test_what_is_printed_into_its_pipe_is_no_name(tmp_path: Path, janitor: Janitor) -> None:
    kept = tmp_path / "ours" / "kept"
    kept.touch()
    for text in (f"{kept}\n", f"{tmp_path}/*\n", "\0" * 10_000):
        os.write(janitor._pipe.fd, text.encode())
    _end(janitor, tmp_path / "ours" / "last")
    assert kept.exists()


def test_a_name_is_no_pattern_whatever_is_in_it(tmp_path: Path, janitor: Janitor) -> None:
    ours = tmp_path / "ours"
    removed = [ours / name for name in ("*", "a\nb", "[ab]", " ", "\udcff")]
    kept = [ours / name for name in ("a", "b", "c")]
    for path in (*removed, *kept):
        path.touch()
    for path in removed:
        janitor.remove_at_end(str(path))
    _end(janitor, ours / "last")
    assert sorted(ours.iterdir()) == kept


def test_no_link_leads_out_of_its_folders(tmp_path: Path, janitor: Janitor) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "file").touch()
    ours = tmp_path / "ours"
    (ours / "link").symlink_to(elsewhere)
    (ours / "last link").symlink_to(elsewhere)
    janitor.remove_at_end(str(ours / "link" / "file"))
    janitor.remove_at_end(str(ours / "last link"))
    _end(janitor, ours / "last")
    assert (elsewhere / "file").exists()
    assert list(ours.iterdir()) == [ours / "link"]


def _unread_bytes(fd: int) -> int:
    """In the pipe that this is an end of."""
    count = array.array("i", [0])
    fcntl.ioctl(fd, termios.FIONREAD, count)
    return count[0]


def _has_ended(pid: int) -> bool:
    stat = read_stat(pid)
    return stat is None or stat.state in "ZX"


def test_a_folder_that_is_replaced_by_a_link_is_not_followed(
    tmp_path: Path, janitor: Janitor
) -> None:
    ours, elsewhere = tmp_path / "ours", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "file").touch()
    janitor.remove_at_end(str(ours / "file"))
    # It resolves the folder before it reads the first name.
    assert wait_until(lambda: _unread_bytes(janitor._pipe.fd) == 0)
    ours.rename(tmp_path / "moved")
    ours.symlink_to(elsewhere)
    assert janitor._process is not None
    pid = janitor._process.pid
    janitor.close()
    assert wait_until(lambda: _has_ended(pid))
    assert (elsewhere / "file").exists()


def test_a_later_file_of_the_same_name_stays(tmp_path: Path, janitor: Janitor) -> None:
    name, other = tmp_path / "ours" / "name", tmp_path / "ours" / "other"
    name.touch()
    janitor.remove_at_end(str(name))
    other.touch()  # with an inode of its own
    other.rename(name)
    _end(janitor, tmp_path / "ours" / "last")
    assert name.exists()


@pytest.mark.parametrize(
    "name",
    [
        "relative",
        "/elsewhere",
        "{ours}",
        "{ours}/../x",
        "{ours}/./x",
        "{ours}//x",
        "{ours}/x\0y",
        "{ours}-not/x",
        "{ours}/" + MAX_NAME_BYTES * "x",
    ],
)
def test_what_does_not_lie_in_its_folders_is_refused(
    name: str, tmp_path: Path, janitor: Janitor
) -> None:
    with pytest.raises(ConfigError, match=f"within {tmp_path / 'ours'}"):
        janitor.remove_at_end(name.replace("{ours}", str(tmp_path / "ours")))


def test_frames_are_found_among_anything_in_any_pieces() -> None:
    frames = [frame(TOKEN, b"/a/%d" % number, (number, 7)) for number in range(4)]
    stream = b"text\n" + frames[0] + b"/a/9\n" + frames[1] + frames[2][:-1] + frames[3] + TOKEN
    expected = [(b"/a/0", (0, 7)), (b"/a/1", (1, 7)), (b"/a/3", (3, 7))]
    for size in (1, 2, 7, 50, len(stream)):
        found = Frames(TOKEN)
        pieces = [stream[begin : begin + size] for begin in range(0, len(stream), size)]
        assert [name for piece in pieces for name in found.feed(piece)] == expected, size


def test_a_frame_that_is_damaged_anywhere_names_nothing() -> None:
    whole = frame(TOKEN, b"/a/b")
    for at in range(len(whole)):
        damaged = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
        assert list(Frames(TOKEN).feed(damaged + frame(TOKEN, b"/a/c"))) == [(b"/a/c", (0, 0))], at


def test_what_is_no_frame_is_not_kept() -> None:
    frames = Frames(TOKEN)
    for _ in range(100):
        assert not list(frames.feed(b"x" * 65536))
    assert len(frames._data) < TOKEN_BYTES


def test_the_longest_name_is_written_in_one_piece() -> None:
    assert len(frame(TOKEN, MAX_NAME_BYTES * b"x")) == 4096  # PIPE_BUF


def test_a_name_lies_in_a_folder_only_below_it() -> None:
    folders = ["/tmp", "/"]
    assert place("/tmp/a/b", folders) == ("/tmp", ["a", "b"])
    assert place("/usr/a", folders) == ("/", ["usr", "a"])
    for name in ("/tmp", "/tmpx/a", "/tmp/", "/tmp/a/", "/tmp/../etc", "tmp/a", ""):
        assert place(name, ["/tmp"]) is None
