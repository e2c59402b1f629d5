"""How an engine begins and ends: wrong use, ranks that can't be made, nothing left behind."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import resource
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from multiprocessing import util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
import workers

from mpspmd import Engine, RuntimeConfig, Worker
from mpspmd.engine import blame
from mpspmd.engine.ranks import Ranks, WorkerSpec
from mpspmd.errors import (
    ConfigError,
    EngineClosed,
    RankError,
    SegmentError,
    StartupError,
    WorkerNotPicklable,
)
from mpspmd.processes.spawn import start_ranks

pytestmark = pytest.mark.timeout(60)

NOTHING: Any = None


@pytest.fixture
def run_dirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared_calculators: Any) -> Path:
    """Where runs put their folders in this test."""
    shared_calculators.get()  # its folder is elsewhere
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture(autouse=True)
def _leaves_nothing(run_dirs: Path, eventually: Any) -> Iterator[None]:
    """No process, thread, segment or folder, whatever happens to the engine."""
    children = set(psutil.Process().children(recursive=True))
    threads = threading.active_count()
    segments = _segments()
    yield
    assert set(psutil.Process().children(recursive=True)) <= children
    # The thread that calls back goes when the callback has returned.
    eventually(lambda: threading.active_count() <= threads, "the end of our threads")
    assert _segments() <= segments  # fewer, where an engine of an earlier test is collected now
    assert not list(run_dirs.glob("mpspmd-*"))


def _open_files() -> list[str]:
    """What this process's descriptors lead to."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
    return found


def _segments() -> set[str]:
    return {name for name in _open_files() if "/mpspmd-" in name}


class TestWrongUse:
    @pytest.mark.parametrize("world_size", [0, -1, 65, "2", 2.0, None])
    def test_an_impossible_world_size_is_refused_with_its_value(self, world_size: Any) -> None:
        with pytest.raises(ConfigError, match=f"world_size={world_size!r}: must be"):
            Engine(workers.Calculator, world_size=world_size)

    @pytest.mark.parametrize(
        ("given", "told"),
        [
            ({"worker": "app:Model"}, "worker='app:Model': must be a class"),
            ({"args": 5}, "args is of int"),
            ({"kwargs": [5]}, "kwargs is of list"),
            ({"fatal_methods": "add"}, r"such as \['add'\]"),
            ({"remove_at_end": "/tmp/x"}, r"such as \['/tmp/x'\]"),
        ],
    )
    def test_an_argument_of_another_kind_is_refused(self, given: Any, told: str) -> None:
        with pytest.raises(ConfigError, match=told):
            Engine(**{"worker": workers.Calculator, "world_size": 1} | given)

    def test_the_limit_of_the_world_size_is_named(self) -> None:
        with pytest.raises(ConfigError, match="from 1 to 64"):
            Engine(workers.Calculator, world_size=65)

    def test_a_local_worker_class_is_refused_with_the_remedy(self) -> None:
        class Local(Worker):
            pass

        with pytest.raises(WorkerNotPicklable, match=r"Local.*top level of a module"):
            Engine(Local, world_size=2)

    @pytest.mark.parametrize("argument", [threading.Lock(), lambda: None, (i for i in ())])
    def test_an_argument_that_cannot_be_pickled_is_refused(self, argument: Any) -> None:
        with pytest.raises(WorkerNotPicklable, match="arguments"):
            Engine(workers.Calculator, world_size=2, args=(argument,))

    def test_an_argument_whose_pickling_raises_anything_is_refused(self) -> None:
        with pytest.raises(WorkerNotPicklable, match="of its own"):
            Engine(workers.Calculator, world_size=2, args=(workers.Unreducible(),))

    def test_a_socket_folder_with_too_long_a_name_is_refused(self, tmp_path: Path) -> None:
        long = tmp_path / ("x" * 100)
        long.mkdir()
        with pytest.raises(SegmentError, match="107 are allowed"):
            Engine(workers.Calculator, world_size=1, config=RuntimeConfig(runtime_dir=str(long)))
        assert not list(long.iterdir())

    def test_a_socket_folder_that_is_not_there_is_refused(self, tmp_path: Path) -> None:
        missing = str(tmp_path / "missing")
        with pytest.raises(SegmentError, match="MPSPMD_RUNTIME_DIR"):
            Engine(workers.Calculator, world_size=1, config=RuntimeConfig(runtime_dir=missing))

    def test_an_engine_that_cannot_be_made_leaves_no_descriptor_open(
        self, tmp_path: Path, eventually: Any
    ) -> None:
        config = RuntimeConfig(record_requests=str(tmp_path / "missing" / "requests.rec"))

        def fail() -> int:
            with pytest.raises(ConfigError, match="must be a file that can be made"):
                Engine(workers.Calculator, world_size=1, config=config)
            gc.collect()
            return len(os.listdir("/proc/self/fd"))

        before = fail()  # what the first one imports and opens may stay
        for _ in range(5):
            fail()
        # A thread of ZeroMQ's closes its socket.
        eventually(lambda: len(os.listdir("/proc/self/fd")) <= before, "the descriptors are closed")


class TestStart:
    def test_every_rank_gets_the_arguments_and_its_own_environment(self) -> None:
        @contextlib.contextmanager
        def own(rank: int) -> Iterator[None]:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("TEST_OF_RANK", str(rank))
                yield

        with Engine(
            workers.Calculator, world_size=2, kwargs={"start": 5}, around_start=own
        ) as engine:
            assert engine.collective_rpc("add", args=(1,)) == [6, 6]
            assert engine.collective_rpc("environment", args=("TEST_OF_RANK",)) == ["0", "1"]
            folder = Path(engine.call("run_dir", reply_ranks=0))
            assert folder.stat().st_mode & 0o777 == 0o700
            assert engine.world_size == 2

    def test_a_rank_starts_before_another_one_has_read_its_large_arguments(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        spawn = util.spawnv_passfds
        pids: list[int] = []

        def spawn_and_stop_the_first(path: Any, args: Any, fds: Any) -> int:
            pid = spawn(path, args, fds)
            if "spawn_main" in str(args):
                pids.append(pid)
                if len(pids) == 1:
                    os.kill(pid, signal.SIGSTOP)
                    late.start()
                else:
                    late.cancel()
                    resume()
            return pid

        def resume() -> None:
            started_by_then.append(len(pids))
            os.kill(pids[0], signal.SIGCONT)

        started_by_then: list[int] = []
        late = threading.Timer(20, resume)
        monkeypatch.setattr(util, "spawnv_passfds", spawn_and_stop_the_first)
        with Engine(workers.Calculator, world_size=2, args=(bytes(1 << 20),)) as engine:
            assert engine.collective_rpc(lambda worker: len(worker.total)) == [1 << 20] * 2
            files = [os.readlink(fd) for fd in Path("/proc/self/fd").iterdir() if fd.exists()]
            assert not [file for file in files if "mpspmd-start" in file]
        assert started_by_then == [2]

    def test_a_workers_arguments_may_be_tensors_in_memory_that_all_share(self) -> None:
        start = torch.zeros(1)
        with Engine(workers.Calculator, world_size=2, args=(start,)) as engine:
            start += 3
            totals = engine.collective_rpc(lambda worker: worker.total.item())
        assert totals == [3.0, 3.0]

    def test_ranks_can_form_a_process_group(self, engine: Engine) -> None:
        assert engine.collective_rpc("sum_over_ranks") == [3.0, 3.0]

    def test_a_worker_that_raises_is_named_with_cause_and_traceback(self) -> None:
        with pytest.raises(StartupError) as caught:
            Engine(workers.Stillborn, world_size=2, args=("raise", (1,)))
        assert list(caught.value.causes) == [1]
        cause = caught.value.causes[1]
        assert "RuntimeError: no weights for rank 1" in cause
        assert "workers.py" in cause
        assert "rank 1: RuntimeError" in str(caught.value)

    def test_every_worker_that_raises_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(blame, "START_SETTLE_S", 20.0)  # on a busy machine one comes much later
        with pytest.raises(StartupError) as caught:
            Engine(workers.Stillborn, world_size=2, args=("raise", (0, 1), str(tmp_path)))
        assert sorted(caught.value.causes) == [0, 1]

    @pytest.mark.parametrize("how", ["die", "exit"])
    def test_a_rank_that_ends_while_starting_has_its_exit_code_named(self, how: str) -> None:
        with pytest.raises(StartupError, match="exit code 7") as caught:
            Engine(workers.Stillborn, world_size=2, args=(how, (0,)))
        assert list(caught.value.causes) == [0]

    def test_a_rank_that_is_not_ready_in_time_is_named(self) -> None:
        began = time.monotonic()
        with pytest.raises(StartupError, match="MPSPMD_START_TIMEOUT_S") as caught:
            Engine(
                workers.Stillborn,
                world_size=2,
                args=("sleep", (1,)),
                config=RuntimeConfig.from_env(start_timeout_s=2),
            )
        # Importing, on a busy machine.
        limit = r"not ready after 2 s \(MPSPMD_START_TIMEOUT_S\): [a-z ]+ for \d+\.\d s"
        assert re.fullmatch(limit, caught.value.causes[1])
        assert time.monotonic() - began < 30

    @pytest.mark.timeout(150)
    def test_a_start_that_takes_long_is_logged_with_what_each_rank_is_in(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr("mpspmd.engine.stall.START_NOTE_S", 0.05)
        for timeout_s in (6, 30):  # the second on a machine that is too busy for the first
            caplog.clear()
            config = RuntimeConfig.from_env(start_timeout_s=timeout_s, stall_warn_s=2)
            with pytest.raises(StartupError) as caught:
                Engine(workers.Stillborn, world_size=2, args=("sleep", (1,)), config=config)
            lines = [
                each.getMessage() for each in caplog.records if "not all ranks" in each.getMessage()
            ]
            shown = ("ready for", "in its constructor", "time.sleep(60)")
            if "importing" in lines[0] and all(words in lines[-1] for words in shown):
                break
        assert "in its constructor for" in caught.value.causes[1]
        # After 0.05, 0.1, 0.2 s and so on, doubling; on a busy machine some may come too late.
        assert 3 <= len(lines) <= 10
        last = lines[-1].splitlines()[0]
        assert re.search(r"rank 0 \(pid \d+\) ready for \d+\.\d s", last)
        assert re.search(r"rank 1 \(pid \d+\) in its constructor for \d+\.\d s", last)
        assert "importing" in lines[0]
        assert "\n" not in lines[0]
        assert "time.sleep(60)" in lines[-1]


class TestEnd:
    def test_a_closed_engine_says_so(self) -> None:
        engine = Engine(workers.Calculator, world_size=1)
        engine.shutdown()
        engine.shutdown()
        with pytest.raises(EngineClosed, match="shut down"):
            engine.collective_rpc("rank")
        with pytest.raises(EngineClosed):
            engine.collective_rpc("rank", non_block=True)

    def test_every_worker_is_shut_down_once_when_the_block_ends(self, tmp_path: Path) -> None:
        with Engine(workers.Tidy, world_size=2, args=(str(tmp_path), 0.2)) as engine:
            pids = engine.pids
        for rank in range(2):
            assert (tmp_path / str(rank)).read_text() == "shut down\n"
        assert not [pid for pid in pids if psutil.pid_exists(pid)]

    def test_shutdown_lets_the_current_method_return(self, tmp_path: Path) -> None:
        engine = Engine(workers.Tidy, world_size=2, args=(str(tmp_path),))
        engine.call("sleep", (0.5,), reply_ranks=None)
        engine.shutdown()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]

    def test_a_worker_that_takes_too_long_to_shut_down_is_stopped(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        config = RuntimeConfig.from_env(shutdown_timeout_s=0.3)
        engine = Engine(workers.Tidy, world_size=1, args=(str(tmp_path), 60.0), config=config)
        began = time.monotonic()
        engine.shutdown()
        assert time.monotonic() - began < 40
        assert "had to be killed" in caplog.text

    def test_a_shutdown_may_give_workers_less_time(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        config = RuntimeConfig.from_env(shutdown_timeout_s=100)
        engine = Engine(workers.Tidy, world_size=1, args=(str(tmp_path), 60.0), config=config)
        for wrong in (-1, "1"):
            with pytest.raises(ConfigError, match=f"timeout={wrong!r}: must be"):
                engine.shutdown(wrong)
        assert repr(engine) == f"<Engine: world_size 1, running, pids {engine.pids}>"
        engine.shutdown(timeout=0.3)
        assert "longer than 0.3 s" in caplog.text
        assert repr(engine) == "<Engine: world_size 1, shut down>"

    def test_a_block_that_an_exception_leaves_gives_workers_a_second(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        config = RuntimeConfig.from_env(shutdown_timeout_s=100)
        engine = Engine(workers.Tidy, world_size=1, args=(str(tmp_path), 60.0), config=config)
        with pytest.raises(ValueError, match="no luck"), engine:
            raise ValueError("no luck")
        assert "longer than 1 s" in caplog.text

    def test_shutdown_from_a_failure_callback_is_complete(self, eventually: Any) -> None:
        engine = Engine(workers.Calculator, world_size=2)
        engine.on_failure(lambda cause: engine.shutdown())
        engine.call("leave", (1,), reply_ranks=None)
        eventually(lambda: engine.failure is not None, "the engine has failed")
        pids = engine.pids
        eventually(lambda: not any(map(psutil.pid_exists, pids)), "the ranks are gone")
        engine.shutdown()

    def test_a_signals_handler_may_shut_down_during_a_shutdown(
        self, tmp_path: Path, go: Path, eventually: Any
    ) -> None:
        config = RuntimeConfig.from_env(shutdown_timeout_s=40)
        args = (str(tmp_path), 0.0, str(go))
        engine = Engine(workers.Tidy, world_size=1, args=args, config=config)
        ended: list[str] = []

        def shut_down(*_: object) -> None:
            engine.shutdown()
            ended.append("in the handler")
            go.touch()  # for the worker's shutdown

        def signal_it() -> None:
            eventually(lambda: engine._ending.has_begun, "the shutdown has begun")
            os.kill(os.getpid(), signal.SIGHUP)

        before = signal.signal(signal.SIGHUP, shut_down)
        threading.Thread(target=signal_it).start()
        engine.shutdown()
        signal.signal(signal.SIGHUP, before)
        assert ended == ["in the handler"]
        assert (tmp_path / "0").exists()

    @pytest.mark.long
    def test_no_call_outlives_a_shutdown_though_on_cause_never_returns(self) -> None:
        asked, ended = threading.Event(), threading.Event()
        errors: list[BaseException] = []

        def wait(cause: BaseException) -> None:
            asked.set()
            ended.wait(50)

        def call() -> None:
            try:
                engine.collective_rpc("fail_on", args=(1, "no luck", 0.2))
            except RankError as error:
                errors.append(error)

        engine = Engine(workers.Calculator, world_size=2, on_cause=wait, fatal_methods=["fail_on"])
        caller = threading.Thread(target=call, daemon=True)
        caller.start()
        assert asked.wait(20)
        engine.shutdown()
        caller.join(20)
        assert [type(error) for error in errors] == [RankError]
        ended.set()

    def test_ranks_that_find_no_descriptors_hold_none(self, eventually: Any) -> None:
        ranks = Ranks(100, RuntimeConfig.from_env(), NOTHING)
        spec = WorkerSpec(workers.Calculator, (), {}, None, None, start_ranks)
        files: Any = SimpleNamespace(folder=Path("/"), janitor=None)
        gc.collect()
        before, limits = len(_open_files()), resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (before + 100, limits[1]))
        try:
            with pytest.raises(SegmentError, match="Too many open files"):
                ranks.start(spec, NOTHING, files)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        ranks.close()
        # Threads of other engines and of ZeroMQ open and close some meanwhile.
        eventually(lambda: len(_open_files()) <= before, "all are closed")

    def test_an_engine_that_was_shut_down_holds_no_descriptor(self, eventually: Any) -> None:
        Engine(workers.Calculator, world_size=1).shutdown()  # what it imports may stay open
        gc.collect()
        before = len(_open_files())
        Engine(workers.Calculator, world_size=2).shutdown()
        gc.collect()  # multiprocessing closes a process's pipes with the process object
        eventually(lambda: len(_open_files()) <= before, "all are closed")  # one by ZeroMQ's thread

    def test_an_expected_end_of_the_ranks_is_no_failure(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        failed = threading.Event()
        engine = Engine(workers.Calculator, world_size=2)
        engine.on_failure(lambda cause: failed.set())
        future = engine.collective_rpc("sleep", args=(0.1,), non_block=True)
        future.add_done_callback(lambda done: time.sleep(0.5))
        engine.shutdown()
        assert not failed.wait(0.2)
        assert "died" not in caplog.text

    def test_calls_of_other_threads_end_when_the_engine_is_shut_down(self) -> None:
        engine = Engine(workers.Calculator, world_size=1)
        errors: list[BaseException] = []

        def call_for_ever() -> None:
            try:
                while True:
                    engine.collective_rpc("echo", args=(bytes(100_000),))
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=call_for_ever) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.2)
        engine.shutdown()
        for thread in threads:
            thread.join(20)
        assert [type(error) for error in errors] == [EngineClosed] * 4
