"""The file of a recording: it can be read again, and other programs' files stay as they are."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mpspmd.engine.recording import RecordingEncoder
from mpspmd.errors import RecordingError
from mpspmd.recording.layout import CHECKSUM, HEAD, MAGIC, About, Spec, Type
from mpspmd.recording.reader import Recording
from mpspmd.recording.writer import RecordingWriter
from mpspmd.wire import ALL, KIND_STEP

pytestmark = pytest.mark.timeout(60)


def _writer(path: Path, limit: int = 1 << 20, args: bytes = b"") -> RecordingWriter:
    about = About(0, 0.0, 1, "", [], {}, {}, {})
    return RecordingWriter(str(path), limit, about, Spec(b"", args, b""))


def _steps(path: Path) -> list[int]:
    with Recording(str(path)) as opened:
        assert opened.scan().error is None
        return [record.step for record in opened.records() if record.type == Type.REQUEST]


def test_a_signal_that_raises_in_the_middle_of_a_record_leaves_no_half_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing = _writer(tmp_path / "requests.rec")
    writev = os.writev

    def interrupted(fd: int, parts: Any) -> int:
        writev(fd, parts)
        raise KeyboardInterrupt

    writing.add(Type.REQUEST, step=1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "writev", interrupted)
        with pytest.raises(KeyboardInterrupt):
            writing.add(Type.REQUEST, step=2)
    writing.add(Type.REQUEST, step=3)
    writing.close()
    assert _steps(tmp_path / "requests.rec") == [1, 3]


def test_a_signals_handler_that_records_meanwhile_comes_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing = _writer(tmp_path / "requests.rec")
    writev = os.writev

    def handled(fd: int, parts: Any) -> int:
        monkeypatch.setattr(os, "writev", writev)
        writing.add(Type.REQUEST, step=2)
        return writev(fd, parts)

    monkeypatch.setattr(os, "writev", handled)
    writing.add(Type.REQUEST, step=1)
    writing.close()
    assert _steps(tmp_path / "requests.rec") == [1, 2]


class Nameless:
    """A callable whose name can't be had."""

    def __call__(self, worker: object) -> None: ...

    def __repr__(self) -> str:
        raise ZeroDivisionError


def test_a_request_that_can_not_be_recorded_leaves_the_one_before_it_a_sent_one(
    tmp_path: Path,
) -> None:
    encoder = RecordingEncoder(None, False, _writer(tmp_path / "requests.rec"))
    for step in (1, 3):
        kind, _, _ = encoder.encode(step, "echo", (object(),), {}, ALL)
        encoder.sent(kind)
        with pytest.raises(ZeroDivisionError):
            encoder.encode(step + 1, Nameless(), (), {}, ALL)
    encoder.close()
    with Recording(str(tmp_path / "requests.rec")) as opened:
        contents = opened.scan()
    assert (contents.error, contents.requests, contents.unsent) == (None, 2, frozenset())


def test_a_long_name_that_is_cut_in_the_middle_of_a_character_can_be_read(tmp_path: Path) -> None:
    writing = _writer(tmp_path / "requests.rec")
    writing.add(Type.REQUEST, step=1, name="x" + "ü" * 600)
    writing.close()
    with Recording(str(tmp_path / "requests.rec")) as opened:
        assert opened.scan().error is None
        names = [record.name for record in opened.records() if record.type == Type.REQUEST]
    assert [name[:500] for name in names] == ["x" + "ü" * 499]


def test_a_variable_that_is_no_utf8_is_recorded(tmp_path: Path) -> None:
    about = About(0, 0.0, 1, "", [], {}, {"VLLM_CACHE_ROOT": "/lat\udce9n"}, {})
    RecordingWriter(str(tmp_path / "file"), 1 << 20, about, Spec(b"", b"", b"")).close()
    with Recording(str(tmp_path / "file")) as opened:
        assert opened.about == about


def test_a_record_of_an_unknown_type_is_a_typed_error(tmp_path: Path) -> None:
    writing = _writer(tmp_path / "requests.rec")
    writing.add(Type.REQUEST, step=1)
    unknown: Any = 99
    writing.add(unknown)
    writing.close()
    with Recording(str(tmp_path / "requests.rec")) as opened:
        contents = opened.scan()
    assert contents.requests == 1
    assert contents.error is not None
    assert contents.error.requests == 1
    assert "unknown type 99" in str(contents.error)


def test_a_beginning_that_is_no_text_is_a_typed_error(tmp_path: Path) -> None:
    payload = b'{"worker":"\xff"}'
    head = HEAD.pack(Type.ABOUT, 0, 0, 0, 0, len(payload), 0)
    crc = CHECKSUM.pack(zlib.crc32(payload, zlib.crc32(head)))
    path = tmp_path / "requests.rec"
    path.write_bytes(MAGIC + head + crc + payload)
    with pytest.raises(RecordingError, match="its beginning can't be read"):
        Recording(str(path))


def test_a_full_file_takes_the_place_of_the_runs_earlier_one(tmp_path: Path) -> None:
    path = tmp_path / "requests.rec"
    writing = _writer(path)
    for step in (1, 2, 3):
        writing.add(Type.REQUEST, KIND_STEP, step=step)
        writing.rotate(step + 1)
    writing.close()
    assert _steps(tmp_path / "requests.rec.1") == [3]
    assert sorted(os.listdir(tmp_path)) == ["requests.rec", "requests.rec.1"]


def _put_a_file(path: Path) -> None:
    path.write_text("another program's")


def _put_a_link(path: Path) -> None:
    path.symlink_to(path.with_name("elsewhere"))


def _content(path: Path) -> str:
    return os.readlink(path) if path.is_symlink() else path.read_text()


@pytest.mark.parametrize("put", [_put_a_file, _put_a_link])
@pytest.mark.parametrize("is_first", [True, False])
def test_another_programs_file_at_the_suffix_stays(
    put: Callable[[Path], None], is_first: bool, tmp_path: Path
) -> None:
    path, aside = tmp_path / "requests.rec", tmp_path / "requests.rec.1"
    writing = _writer(path)
    if not is_first:
        writing.rotate(1)
        aside.unlink()
    put(aside)
    content = _content(aside)
    writing.add(Type.REQUEST, KIND_STEP, step=1)
    writing.rotate(2)
    writing.add(Type.REQUEST, KIND_STEP, step=2)
    writing.close()
    assert _content(aside) == content
    assert _steps(path) == [1]
    assert _steps(tmp_path / "requests.rec-2") == [2]


@pytest.mark.parametrize("put", [_put_a_file, _put_a_link])
def test_another_programs_file_at_the_recordings_own_name_stays(
    put: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / "requests.rec"
    writing = _writer(path)
    writing.add(Type.REQUEST, KIND_STEP, step=1)
    path.rename(tmp_path / "kept")
    put(path)
    content = _content(path)
    writing.rotate(2)
    writing.add(Type.REQUEST, KIND_STEP, step=2)
    writing.close()
    assert _content(path) == content
    assert _steps(tmp_path / "kept") == [1]
    assert _steps(tmp_path / "requests.rec-2") == [2]
    assert not (tmp_path / "requests.rec.1").exists()


def test_two_runs_that_have_had_the_same_name_keep_all_of_their_files(tmp_path: Path) -> None:
    path = tmp_path / "requests.rec"
    first = _writer(path)
    path.rename(tmp_path / "kept")
    second = _writer(path)
    for writing, step in ((first, 1), (second, 2)):
        writing.add(Type.REQUEST, KIND_STEP, step=step)
        writing.rotate(step + 10)
        writing.add(Type.REQUEST, KIND_STEP, step=step + 10)
        writing.close()
    names = ("kept", "requests.rec-2", "requests.rec.1", "requests.rec")
    assert [_steps(tmp_path / name) for name in names] == [[1], [11], [2], [12]]


def test_a_signal_that_raises_while_a_new_file_begins_does_not_end_the_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing = _writer(tmp_path / "requests.rec")
    writing.add(Type.REQUEST, KIND_STEP, step=1)

    def interrupted(fd: int, size: int, at: int) -> bytes:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", interrupted)
        with pytest.raises(KeyboardInterrupt):
            writing.rotate(2)
    writing.rotate(2)
    writing.add(Type.REQUEST, KIND_STEP, step=2)
    writing.close()
    assert _steps(tmp_path / "requests.rec.1") == [1]
    assert _steps(Path(writing.path)) == [2]


@pytest.mark.parametrize("n_args", [40_000, 200_000])
@pytest.mark.parametrize("n_held", [0, None])
def test_a_new_file_is_not_full_because_of_what_the_ranks_were_started_with(
    n_args: int, n_held: int | None, tmp_path: Path
) -> None:
    limit = 1 << 16
    writing = _writer(tmp_path / "requests.rec", limit, bytes(n_args))
    for step in range(3):
        assert not writing.is_full(n_held)
        writing.add(Type.REQUEST, KIND_STEP, step=step, payload=bytes(limit))
        assert writing.is_full(n_held)
        writing.rotate(step + 1)
    writing.close()
