"""Dumps: what is left of a run that has failed, was killed, or hangs."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mpspmd
from mpspmd.errors import ConfigError, DumpError, RankDied, StepTimeout
from mpspmd.observe.dump import read_dump
from mpspmd.processes import janitor as janitor_module
from mpspmd.processes import janitor_process
from mpspmd.processes.janitor_process import Dump

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

import workers
from chrome_traces import check

pytestmark = pytest.mark.timeout(120)

PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
import mpspmd, workers
if __name__ == "__main__":
    engine = mpspmd.Engine(workers.Calculator, world_size=2)
    for _ in range(5):
        engine.collective_rpc("echo", (1,))
    future = engine.collective_rpc("sleep_on", (1, 60), non_block=True)
    while engine.stats().ranks[1].method != "sleep_on" or engine.stats().ranks[0].phase != "waiting":
        pass
    print(*engine.pids, flush=True)
    sys.stdin.read()
    engine.shutdown()
"""


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the janitor of a busy machine."""
    monkeypatch.setattr(janitor_module, "_DUMP_S", 20.0)


@pytest.fixture
def dumps(tmp_path: Path) -> Path:
    folder = tmp_path / "dumps"
    folder.mkdir()
    return folder


@pytest.fixture
def engine(dumps: Path) -> Iterator[mpspmd.Engine]:
    config = mpspmd.RuntimeConfig(dump_dir=str(dumps), shutdown_timeout_s=1)
    with mpspmd.Engine(workers.Calculator, world_size=2, config=config) as engine:
        yield engine


def only(dumps: Path, eventually: Any) -> str:
    """The path of the one dump, when it is complete."""

    def is_complete() -> bool:
        for path in dumps.iterdir():
            try:
                read_dump(str(path))
            except DumpError:
                return False
            return True
        return False

    eventually(is_complete, "there is a dump")
    (path,) = dumps.iterdir()
    return str(path)


def wait_for_end_of(janitor: Any, eventually: Any) -> None:
    eventually(
        lambda: janitor.reap() or not os.path.exists(f"/proc/{janitor.pid}"),
        "the janitor has ended",
    )


def test_a_killed_rank_leaves_a_dump_that_names_the_step(
    engine: mpspmd.Engine, dumps: Path, eventually: Any, tmp_path: Path
) -> None:
    janitor = engine._ending._files.janitor._process
    engine.collective_rpc("echo", args=(1,))
    future = engine.collective_rpc("sleep_on", args=(1, 60), non_block=True)
    eventually(lambda: engine.stats().ranks[1].method == "sleep_on", "it runs")
    os.kill(engine.pids[1], signal.SIGKILL)
    with pytest.raises(RankDied) as raised:
        future.result()
    with pytest.raises(RankDied) as again:
        engine.collective_rpc("echo", args=(1,))
    path = only(dumps, eventually)
    assert raised.value.dump == again.value.dump == path
    assert str(raised.value).endswith(f"; dump: {path}")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    dump = read_dump(path)
    assert dump.about["pid"] == os.getpid()
    assert dump.about["cause"].startswith(
        f"rank 1 (pid {engine.pids[1]}) died in sleep_on (step 2)"
    )
    assert dump.about["versions"]["mpspmd"] == mpspmd.__version__
    assert dump.places[1].startswith(f"rank 1 (pid {engine.pids[1]}): in sleep_on (step 2) for ")
    assert dump.places[1].endswith("its process had ended")
    done = subprocess.run(
        [sys.executable, "-m", "mpspmd", "trace", path, "--last", "1s", "-o", tmp_path / "trace"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "died in sleep_on (step 2)" in done.stderr
    trace = json.loads((tmp_path / "trace").read_text())
    check(trace)
    last = [e for e in trace["traceEvents"] if e["ph"] == "X" and e["tid"] == 2][-1]
    assert (last["name"], last["args"]["step"]) == ("sleep_on", 2)
    engine.shutdown()
    wait_for_end_of(janitor, eventually)
    assert [str(each) for each in dumps.iterdir()] == [path]


def test_all_processes_killed_in_mid_step_leave_a_dump(dumps: Path, eventually: Any) -> None:
    unit = str(Path(workers.__file__).parent)
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, unit],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"MPSPMD_DUMP_DIR": str(dumps)},
    )
    assert process.stdout is not None
    ranks = [int(pid) for pid in process.stdout.readline().split()]
    # All are stopped first: none may do anything about the death of another.
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in (process.pid, *ranks):
            os.kill(pid, number)
    process.communicate()
    path = only(dumps, eventually)
    assert Path(path).name.startswith(f"mpspmd-{process.pid}-")
    dump = read_dump(path)
    assert "they were killed" in dump.about["cause"]
    assert "in sleep_on (step 6)" in dump.places[1]
    assert list(dump.records.engine["step"]) == [1, 2, 3, 4, 5, 6]
    assert dump.records.ranks[1]["finished"][-1] == 0 < dump.records.ranks[1]["started"][-1]


def test_a_timeout_names_its_dump_and_the_run_goes_on(
    engine: mpspmd.Engine, dumps: Path, eventually: Any, tmp_path: Path
) -> None:
    janitor = engine._ending._files.janitor._process
    go = tmp_path / "go"
    with pytest.raises(StepTimeout) as raised:
        engine.collective_rpc("wait_for", args=(str(go), None, 0), timeout=0.3)
    go.touch()
    report = raised.value.report
    assert report is not None
    path = only(dumps, eventually)
    assert report.dump == path
    assert f"dump: {path}" in str(raised.value)
    assert "wait_for (step 1) is not done after " in read_dump(path).about["cause"]
    assert engine.collective_rpc("echo", args=(1,)) == [1, 1]
    engine.shutdown()
    wait_for_end_of(janitor, eventually)
    assert len(list(dumps.iterdir())) == 1


def test_a_run_that_ends_as_it_should_leaves_none(dumps: Path, eventually: Any) -> None:
    config = mpspmd.RuntimeConfig(dump_dir=str(dumps))
    with mpspmd.Engine(workers.Calculator, world_size=1, config=config) as engine:
        janitor = engine._ending._files.janitor._process
        assert janitor is not None
        engine.collective_rpc("echo", args=(1,))
    wait_for_end_of(janitor, eventually)
    assert list(dumps.iterdir()) == []


def timeout_of(engine: mpspmd.Engine) -> tuple[str | None, str]:
    """The path of the dump of a call that times out, and the error's text."""
    with tempfile.TemporaryDirectory() as folder:
        go = Path(folder, "go")
        with pytest.raises(StepTimeout) as raised:
            engine.collective_rpc("wait_for", args=(str(go),), timeout=0.1)
        go.touch()
        engine.collective_rpc("echo", args=(1,))
    report = raised.value.report
    assert report is not None
    return report.dump, str(raised.value)


def test_a_dump_that_cannot_be_written_is_not_named(
    engine: mpspmd.Engine, dumps: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dumps.rmdir()
    path, text = timeout_of(engine)
    assert (path, "dump:" in text) == (None, False)
    assert f"no dump {dumps}/mpspmd-{os.getpid()}-" in caplog.text
    assert ".dump: No such file or directory" in caplog.text
    dumps.mkdir()
    path, text = timeout_of(engine)
    assert path is not None
    assert f"dump: {path}" in text
    read_dump(path)  # it is complete
    dumps.rename(dumps.parent / "elsewhere")
    os.kill(engine.pids[1], signal.SIGKILL)
    with pytest.raises(RankDied) as raised:
        engine.collective_rpc("echo", args=(1,))
    assert (raised.value.dump, "dump" in str(raised.value)) == (None, False)


def test_a_janitor_that_is_slow_or_dead_holds_up_no_error(
    engine: mpspmd.Engine,
    dumps: Path,
    eventually: Any,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(janitor_module, "_DUMP_S", 1.0)
    janitor = engine._ending._files.janitor._process
    assert janitor is not None
    os.kill(janitor.pid, signal.SIGSTOP)
    assert timeout_of(engine)[0] is None
    assert ".dump: it wasn't written within 1 s" in caplog.text
    monkeypatch.setattr(janitor_module, "_DUMP_S", 20.0)
    os.kill(janitor.pid, signal.SIGCONT)
    late = Path(only(dumps, eventually))
    path, _ = timeout_of(engine)
    assert path is not None
    assert {Path(path), late} == set(dumps.iterdir())
    assert Path(path) != late
    read_dump(path)
    os.kill(janitor.pid, signal.SIGKILL)
    assert timeout_of(engine)[0] is None
    assert ".dump: the janitor has ended" in caplog.text


def test_a_dump_never_replaces_a_file(tmp_path: Path) -> None:
    (tmp_path / "memory").write_bytes(bytes(256))
    fd = os.open(tmp_path / "memory", os.O_RDONLY)
    settings = {"folder": str(tmp_path), "status": fd, "recorder": fd, "records_at": 128}
    dump = Dump(settings | {"about": {"pid": 1}})
    other, link = tmp_path / "other", tmp_path / "link"
    other.write_text("another program's")
    link.symlink_to(tmp_path / "nothing")
    assert dump.write(str(other), "cause") == "File exists"
    assert dump.write(str(link), "cause") == "File exists"
    assert other.read_text() == "another program's"
    assert not (tmp_path / "nothing").exists()
    assert dump.write(str(tmp_path / "new"), "cause") == ""
    assert (tmp_path / "new").read_bytes().startswith(janitor_process.DUMP_MAGIC)
    os.close(fd)


def test_a_dump_that_space_is_lacking_for_leaves_no_file(tmp_path: Path) -> None:
    memory = tmp_path / "memory"
    memory.write_bytes(bytes(256))
    fd = os.open(memory, os.O_RDONLY)
    settings = {"folder": str(tmp_path), "status": fd, "recorder": fd, "records_at": 128}
    dump = Dump(settings | {"about": {"pid": 1}})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (128, hard))
    try:
        why = dump.write(str(tmp_path / "new"), "cause")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    os.close(fd)
    assert why == "File too large"
    assert list(tmp_path.iterdir()) == [memory]


def test_a_dump_that_memory_is_lacking_for_does_not_keep_the_runs_files(tmp_path: Path) -> None:
    memory, left = tmp_path / "memory", tmp_path / "left"
    memory.touch()
    left.touch()
    os.truncate(memory, 1 << 30)
    fd = os.open(memory, os.O_RDONLY)
    dump = {"status": fd, "recorder": fd, "records_at": 1 << 30, "about": {"pid": 1}}
    settings = {
        "token": "00" * janitor_process.TOKEN_BYTES,
        "folders": [],
        "patterns": [str(left)],
        "dump": dump | {"folder": str(tmp_path)},
    }
    # Address space for the interpreter, and not for what is to be read.
    subprocess.run(
        [
            "/usr/bin/prlimit",
            f"--as={256 << 20}",
            sys.executable,
            "-I",
            "-S",
            janitor_process.__file__,
        ],
        stdin=subprocess.DEVNULL,
        env={janitor_process.VARIABLE: json.dumps(settings)},
        pass_fds=(fd,),
        check=True,
    )
    os.close(fd)
    assert list(tmp_path.iterdir()) == [memory]


@pytest.mark.parametrize("folder", ["/nowhere", __file__])
def test_a_folder_that_cannot_be_written_to_is_refused(folder: str) -> None:
    config = mpspmd.RuntimeConfig(dump_dir=folder)
    with pytest.raises(ConfigError, match=r"dump_dir=.*: must be a folder"):
        mpspmd.Engine(workers.Calculator, world_size=1, config=config)


def test_without_the_recorder_there_are_no_dumps() -> None:
    with pytest.raises(ConfigError, match="needs the recorder"):
        mpspmd.RuntimeConfig(dump_dir="/tmp", record_steps=0)


def test_a_damaged_dump_says_what_is_wrong(
    engine: mpspmd.Engine, dumps: Path, eventually: Any, tmp_path: Path
) -> None:
    timeout_of(engine)
    whole = Path(only(dumps, eventually)).read_bytes()
    damaged = tmp_path / "damaged"
    lines = whole.split(b"\n", 2)
    for data, words in (
        (b"", "no dump"),
        (whole[:-1], "bytes should follow"),
        (whole + b"x", "bytes should follow"),
        (lines[0] + b"\n{}\n" + lines[2], "header"),
        (lines[0] + b"\n" + lines[1][:-1] + b"\n" + lines[2], "header"),
        (whole.replace(b'"time"', b'"Time"', 1), "header"),
        (re.sub(rb'"monotonic": [0-9.]+', b'"monotonic": 1e999', whole, count=1), "header"),
        (whole.replace(b"mspmRecd", b"mspmXXXX"), "no recorder"),
        (whole.replace(b"mspmStat", b"mspmXXXX"), "status page"),
    ):
        damaged.write_bytes(data)
        with pytest.raises(DumpError, match=words):
            read_dump(str(damaged))
