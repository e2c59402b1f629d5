"""The file of a recording: what is written can be read again."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Any

import pytest

from mpspmd.errors import RecordingError
from mpspmd.recording.layout import CHECKSUM, HEAD, MAGIC, About, Spec, Type
from mpspmd.recording.reader import Recording
from mpspmd.recording.writer import RecordingWriter

pytestmark = pytest.mark.timeout(60)


def _writer(path: Path) -> RecordingWriter:
    about = About(0, 0.0, 1, "", [], {}, {}, {})
    return RecordingWriter(str(path), 1 << 20, about, Spec(b"", b"", b""))


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


def test_a_long_name_that_is_cut_in_the_middle_of_a_character_can_be_read(tmp_path: Path) -> None:
    writing = _writer(tmp_path / "requests.rec")
    writing.add(Type.REQUEST, step=1, name="x" + "ü" * 600)
    writing.close()
    with Recording(str(tmp_path / "requests.rec")) as opened:
        assert opened.scan().error is None
        names = [record.name for record in opened.records() if record.type == Type.REQUEST]
    assert [name[:500] for name in names] == ["x" + "ü" * 499]


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
