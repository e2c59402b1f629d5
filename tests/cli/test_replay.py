"""A recording has what the ranks got, and mpspmd-replay does it again without the engine."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import replayed_workers
from batches import CODEC, Batch, Rows

import mpspmd
from mpspmd.cli.replay import _compare_versions
from mpspmd.engine.recording import RecordingEncoder
from mpspmd.engine.requests import RequestEncoder
from mpspmd.errors import ConfigError, RankDied, RankError, RecordingError, StepTimeout
from mpspmd.recording import writer
from mpspmd.recording.layout import Type
from mpspmd.recording.reader import Recording
from mpspmd.replay.engine import ReplayEngine
from mpspmd.replay.replay import Replay

HERE = Path(__file__).parent

pytestmark = [pytest.mark.timeout(120), pytest.mark.long]


def start(path: Path, worker: Any = replayed_workers.Counter, **settings: Any) -> mpspmd.Engine:
    return mpspmd.Engine(
        worker,
        world_size=2,
        args=(0,) if worker is replayed_workers.Counter else (),
        step_codec=CODEC,
        fatal_methods=(),
        config=mpspmd.RuntimeConfig(record_requests=str(path), **settings),
    )


def batch(step: int, **more: Any) -> Batch:
    """Each step one request comes and one goes; all have one more token."""
    keys = [f"r{number}" for number in range(step, step + 20)]
    rows = Rows(keys[:-1], [number + step for number in range(19)])
    return Batch(dict.fromkeys(keys, 1), 20, rows, finished={f"r{step - 1}"}, **more)


def work(engine: mpspmd.Engine) -> None:
    """30 steps, up to four under way; and between them calls of each kind. 46 requests."""
    under_way = []
    for step in range(30):
        more = {"anything": np.arange(step * 100)} if step % 3 else {}
        sent = engine.execute_model(batch(step, **more), step, non_block=True, reply_rank=step % 2)
        under_way.append(sent)
        if len(under_way) > 3:
            under_way.pop(0).result(30)
        if step % 5 == 0:
            engine.collective_rpc("add", (step,))
            engine.call("add", (1,), reply_ranks=None)
    for future in under_way:
        future.result(30)
    engine.collective_rpc(lambda worker: [worker.ctx.rank, np.ones(1000)])
    engine.collective_rpc("echo", ([batch(3), {"a", "b"}],))
    engine.call("execute_model", (batch(7),), {"named": "yes"}, reply_ranks="all")
    with pytest.raises(RankError, match="not on rank 1"):
        engine.collective_rpc("refuse", (1,))


N_REQUESTS = 46


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recorded") / "requests.rec"
    with start(path) as engine:
        work(engine)
    return path


@pytest.fixture
def recording(recorded: Path, tmp_path: Path) -> Path:
    """A copy."""
    return Path(shutil.copy2(recorded, tmp_path))


_NOISE = ("not all ranks are ready", "a worker's own words")


def run_replay(path: Path, *arguments: str) -> tuple[int, str, str]:
    """The exit code, what it prints, and standard error without what a busy machine adds."""
    done = subprocess.run(
        [sys.executable, "-m", "mpspmd", "replay", str(path), *arguments],
        capture_output=True,
        text=True,
        cwd=HERE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (*sys.path, HERE.parent)))},
    )
    lines = done.stderr.splitlines(keepends=True)
    errors = "".join(line for line in lines if not line.startswith(_NOISE))
    return done.returncode, done.stdout, errors


def replay(path: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """The same with --json."""
    code, out, errors = run_replay(path, "--json", *arguments)
    return code, json.loads(out or "{}"), errors


def error_in(path: Path) -> RecordingError | None:
    """What reading it to its end says."""
    try:
        with Recording(str(path)) as opened:
            return opened.scan().error
    except RecordingError as error:
        return error


def test_a_replay_gets_the_same_replies_to_the_same_requests(recording: Path) -> None:
    code, found, errors = replay(recording)
    assert (code, errors) == (0, ""), found
    assert found["requests"] == N_REQUESTS
    # Of 30 steps, 6 calls of all ranks, 3 more of all, and an error that is one reply for both ranks.
    assert (found["same"], found["different"]) == (30 + 12 + 6 + 1, 0)
    assert found["recorded_digest"] == found["replayed_digest"]
    assert found["requests_agree"] is True
    assert found["times"]["execute_model"]["n"] == 31
    assert found["times"]["execute_model"]["replayed"]["p50"] > 0


SCRIPT = """
import mpspmd

class Squarer(mpspmd.Worker):
    def execute_model(self, number):
        return {"square": number ** 2, "order": list({"a", "b", "c", "d", str(number)})}

def main(engine):
    print([engine.execute_model(number) for number in range(10)])

if __name__ == "__main__":
    mpspmd.run(Squarer, main, world_size=2)
"""


def test_a_worker_of_a_script_is_in_the_recording_itself_and_so_is_its_hash_seed(
    tmp_path: Path,
) -> None:
    path, script = tmp_path / "requests.rec", tmp_path / "app.py"
    script.write_text(SCRIPT)
    environ = os.environ | {"MPSPMD_RECORD_REQUESTS": str(path), "OMP_NUM_THREADS": "1"}
    environ |= {"VLLM_API_KEY": "sesame", "PYTHONPATH": str(HERE.parents[1])}
    environ.pop("PYTHONHASHSEED", None)
    subprocess.run([sys.executable, script], env=environ, check=True, stdout=subprocess.DEVNULL)
    script.unlink()
    with Recording(str(path)) as opened:
        assert opened.about.environ["OMP_NUM_THREADS"] == "1"
    assert b"sesame" not in path.read_bytes()
    code, found, errors = replay(path)
    assert (code, errors) == (0, "")
    assert (found["same"], found["different"]) == (10, 0)


def test_other_versions_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    _compare_versions({"mpspmd": mpspmd.__version__, "python": "2.7"})
    said = capsys.readouterr().err
    assert "recorded with python 2.7, replayed with 3." in said
    assert "mpspmd 0" not in said


def test_a_worker_that_replies_otherwise_is_found_out_at_its_first_difference(
    recording: Path,
) -> None:
    code, found, errors = replay(recording, "replayed_workers:Miscounter", "-n", "2")
    assert (code, errors) == (1, "")
    assert found["different"] > 0
    assert found["recorded_digest"] != found["replayed_digest"]
    assert "execute_model, rank 0: recorded Outcome(" in found["differences"][0]
    assert found["requests_agree"] is True


def test_without_json_it_prints_times_and_counts(recording: Path) -> None:
    code, out, errors = run_replay(recording)
    assert (code, errors) == (0, "")
    assert "replies: 49 the same, 0 different, 0 not compared" in out
    assert "all ranks got the same requests" in out
    assert "execute_model" in out


def test_a_step_of_several_requests_has_the_one_reply_that_was_recorded(tmp_path: Path) -> None:
    path = tmp_path / "requests.rec"
    with start(path) as engine:
        for number in range(5):
            step = engine.steps.send("begin", (number,), reply_ranks=1)
            assert engine.steps.call("add", (1,), reply_ranks=1, ends=step)[1] == 1
        step = engine.steps.send(
            "begin", (1,), reply_ranks=0
        )  # the run ends in the middle of this one
        engine.steps.forget(step)
    with (
        Recording(str(path)) as recording,
        ReplayEngine(replayed_workers.Counter, world_size=2, args=(0,), step_codec=CODEC) as engine,
    ):
        again = Replay(engine, recording, recording.scan(), timeout_s=30)
        again._send_all()
        assert list(again._under_way) == [11]  # no report says of the others that they hang
    assert (again.result.same, again.result.different) == (5, 0), again.result


def test_a_call_that_kills_a_rank_kills_it_again(tmp_path: Path) -> None:
    path = tmp_path / "requests.rec"
    with start(path) as engine:
        for step in range(12):
            engine.execute_model(batch(step))
        engine.call("die_at", (11,), reply_ranks=None)
        with pytest.raises(RankDied):
            engine.collective_rpc("die_at", (12,), timeout=30)
    code, found, errors = replay(path)
    assert code == 1
    assert (found["requests"], found["same"], found["different"]) == (14, 12, 0)
    assert "died in die_at (step 14): killed by SIGKILL" in errors


@pytest.mark.parametrize("keep", [0.3, 0.7, 0.99])
def test_a_file_that_is_cut_off_is_replayed_as_far_as_it_goes(keep: float, recording: Path) -> None:
    os.truncate(recording, int(recording.stat().st_size * keep))
    error = error_in(recording)
    assert error is not None
    code, found, errors = replay(recording)
    assert code == 1
    assert f"cut off behind the first {error.requests} request(s)" in errors
    assert 0 < found["requests"] == error.requests <= N_REQUESTS
    assert found["different"] == 0
    assert found["error"] is None


def test_every_cut_and_every_changed_byte_is_a_typed_error(recording: Path) -> None:
    data = recording.read_bytes()
    changed = recording.with_name("changed.rec")
    draw = np.random.default_rng(0)
    for at in [*range(200), *draw.integers(200, len(data), 400).tolist(), len(data) - 1]:
        byte = bytes([data[at] ^ 1 << int(draw.integers(8))])
        for bad in (data[:at], data[:at] + byte + data[at + 1 :]):
            changed.write_bytes(bad)
            error = error_in(changed)
            assert error is not None, at
            assert error.requests <= N_REQUESTS


def test_a_record_that_is_left_out_is_noticed(recording: Path) -> None:
    data = recording.read_bytes()
    head = writer.HEAD.size + writer.CHECKSUM.size
    at, begins = len(writer.MAGIC), []
    while at < len(data):
        begins.append(at)
        *_, size, name_size = writer.HEAD.unpack_from(data, at)
        at += head + size + name_size
    recording.write_bytes(data[: begins[20]] + data[begins[21] :])
    assert "has been changed" in str(error_in(recording))


def test_what_is_no_recording_says_so(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("mpspmd")
    for name, words in (
        ("text", "no recording"),
        ("nothing", "No such file"),
        (".", "Is a directory"),
    ):
        code, _, errors = replay(tmp_path / name)
        assert code == 1
        assert words in errors
        assert errors.count("\n") == 1


def test_vllm_is_only_for_a_recording_of_vllm(recording: Path) -> None:
    code, out, errors = run_replay(recording, "--vllm")
    assert (code, out) == (1, "")
    assert "requests of replayed_workers:Counter, not of vLLM: omit --vllm" in errors
    assert errors.count("\n") == 1
    code, out, errors = run_replay(recording, "replayed_workers:Counter", "--vllm")
    assert (code, out) == (2, "")
    assert "MODULE:CLASS or --vllm, not both" in errors


def test_a_worker_that_is_named_by_its_file_is_one_line(recording: Path) -> None:
    code, out, errors = run_replay(recording, "./replayed_workers.py:Counter")
    assert (code, out, errors.count("\n")) == (2, "", 1)
    assert "must be MODULE:CLASS" in errors


def test_only_its_user_may_read_a_recording_and_what_others_may_write_is_not_replayed(
    recording: Path,
) -> None:
    assert stat.S_IMODE(recording.stat().st_mode) == 0o600
    for mode in (0o620, 0o602):
        recording.chmod(mode)
        with pytest.raises(RecordingError, match="others may write"):
            Recording(str(recording))
    recording.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(recording, 65534, 0)
        with pytest.raises(RecordingError, match="belongs to user 65534"):
            Recording(str(recording))
    fifo = recording.with_name("fifo.rec")
    os.mkfifo(fifo, 0o600)
    with pytest.raises(RecordingError, match="no regular file"):
        Recording(str(fifo))


def test_nothing_is_replaced_and_a_folder_that_is_not_there_is_an_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "requests.rec"
    path.write_text("mine")
    with start(path) as engine:
        engine.collective_rpc("add", (1,))
    assert path.read_text() == "mine"
    assert f"recorded in {path}-2" in caplog.text
    code, found, _ = replay(Path(f"{path}-2"))
    assert (code, found["same"]) == (0, 2)
    with pytest.raises(ConfigError, match="record_requests"):
        start(tmp_path / "nowhere" / "requests.rec")
    with pytest.raises(ConfigError, match="a folder or a device"):
        start(tmp_path)
    assert not os.path.exists(f"{tmp_path}-2")


def test_a_full_file_is_followed_by_one_that_can_be_replayed_alone(tmp_path: Path) -> None:
    path, limit = tmp_path / "requests.rec", 1 << 16
    with start(path, replayed_workers.Swapper, record_requests_bytes=limit) as engine:
        engine.collective_rpc("echo", (["the start"],))
        for step in range(400):
            engine.execute_model(batch(step, anything=np.arange(step % 50)))
    for each in (Path(f"{path}.1"), path):
        assert each.stat().st_size < 1.2 * limit
        with Recording(str(each)) as opened:
            names = [record.name for record in opened.records() if record.type == Type.REQUEST]
        assert names[0] == "echo"
        assert names[1:] == ["execute_model"] * (len(names) - 1)
        # This worker's replies don't depend on the steps that aren't there.
        code, found, errors = replay(each)
        assert (code, found["different"]) == (0, 0), errors
        assert found["requests"] == len(names)
        assert found["same"] == len(names) + 1
        assert f"begins at step {found['missing']}" in errors
    assert sorted(os.listdir(tmp_path)) == ["requests.rec", "requests.rec.1"]


def test_a_file_that_begins_when_no_request_is_held_replays_to_the_same_replies(
    tmp_path: Path,
) -> None:
    path, limit = tmp_path / "requests.rec", 1 << 16
    with start(path, record_requests_bytes=limit) as engine:
        count = 0
        while not Path(f"{path}.1").exists():
            sent = batch(count, anything=np.arange(200))
            engine.execute_model(sent)
            engine.execute_model(Batch(finished={*sent.counts}), forget=True)
            count += 1
        assert Path(f"{path}.1").stat().st_size < 0.6 * limit
        engine.execute_model(batch(5))
    code, found, errors = replay(path)
    assert (code, found["different"]) == (0, 0), errors
    assert found["same"] >= 1


def _interrupted(encode: Any) -> Any:
    """A Ctrl-C comes behind it."""

    def encode_and_raise(*request: Any) -> Any:
        encode(*request)
        raise KeyboardInterrupt

    return encode_and_raise


def test_a_request_that_was_not_sent_is_not_replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "requests.rec"
    with start(path, request_ring_bytes=1 << 16) as engine:
        engine.call("wait_for", (str(tmp_path / "go"),), reply_ranks=None)
        with pytest.raises(StepTimeout):
            engine.call("echo", (np.arange(100_000),), timeout=0.3)
        (tmp_path / "go").touch()
        with monkeypatch.context() as patch:
            patch.setattr(RequestEncoder, "encode", _interrupted(RequestEncoder.encode))
            with pytest.raises(KeyboardInterrupt):
                engine.collective_rpc("add", (100,))
        with monkeypatch.context() as patch:
            patch.setattr(RecordingEncoder, "encode", _interrupted(RecordingEncoder.encode))
            with pytest.raises(KeyboardInterrupt):
                engine.collective_rpc("add", (100,))
        assert engine.collective_rpc("add", (1,)) == [[1, 0], [1, 1]]
    code, found, errors = replay(path)
    assert (code, errors) == (0, "")
    assert (found["requests"], found["same"]) == (2, 2)


@contextlib.contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_ends_the_recording_and_not_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "requests.rec"
    with start(path) as engine:
        engine.collective_rpc("add", (1,))
        with files_no_larger_than(path.stat().st_size + 2000):
            for number in range(30):
                assert engine.collective_rpc("add", (1,)) == [[number + 2, 0], [number + 2, 1]]
        engine.collective_rpc("add", (1,))
    assert caplog.text.count("recorded no more") == 1
    code, found, errors = replay(path)
    assert (code, found["different"], found["error"]) == (1, 0, None)
    assert 5 < found["requests"] < 25
    assert "has no end" in errors


def test_without_the_setting_nothing_of_it_is_there() -> None:
    with mpspmd.Engine(replayed_workers.Counter, world_size=1, args=(0,)) as engine:
        assert type(engine._sending._encoder) is RequestEncoder
        assert engine._reader.note_reply is None
