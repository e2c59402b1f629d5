"""Whatever a worker's code raises is told, and only SystemExit ends its rank."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import raisers
from raisers import Detailed, Hook, Raiser, ThreadedRaiser
from traces import Traces

from mpspmd import Engine
from mpspmd.engine import blame, observer
from mpspmd.engine.consequences import Consequences
from mpspmd.errors import DecodeError, EncodeError, RankDied, RankError, StartupError

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def _collected(traces: Traces, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """An engine's memory goes with the engine, which a traceback may keep for a while."""
    yield
    caplog.get_records("call").clear()  # they hold tracebacks
    gc.collect()


NAMES = list(raisers.everything_that_is_no_exception())


@pytest.fixture(scope="module")
def lasting() -> Iterator[Engine]:
    with Engine(Raiser, world_size=2) as engine:
        yield engine


@pytest.fixture
def engine(lasting: Engine) -> Iterator[Engine]:
    """Stays usable, whatever a test's calls raise."""
    yield lasting
    assert lasting.collective_rpc("rank", timeout=20) == [0, 1]


class TestNoException:
    """BaseExceptions that aren't Exceptions."""

    @pytest.mark.parametrize("name", NAMES)
    def test_out_of_a_method_it_is_the_calls_error(self, engine: Engine, name: str) -> None:
        with pytest.raises(RankError, match="cancelled") as caught:
            engine.collective_rpc("throw", args=(name,), timeout=20)
        assert caught.value.exception == name
        assert type(caught.value.__cause__).__name__ == name

    def test_out_of_a_callable_it_is_the_calls_error(self, engine: Engine) -> None:
        with pytest.raises(RankError, match="cancelled"):
            engine.collective_rpc(lambda worker: worker.throw("GreenletExit"), timeout=20)

    def test_out_of_the_look_for_a_method_it_is_the_calls_error(self, engine: Engine) -> None:
        with pytest.raises(RankError, match="unaskable"):
            engine.collective_rpc("unaskable", timeout=20)

    @pytest.mark.parametrize("name", NAMES)
    def test_while_an_argument_is_unpickled_it_is_the_calls_error(
        self, engine: Engine, name: str
    ) -> None:
        with pytest.raises(RankError, match="cancelled"):
            engine.collective_rpc("echo", args=(Hook(name, "unpickled"),), timeout=20)

    @pytest.mark.parametrize("name", NAMES)
    def test_while_a_result_is_pickled_it_is_the_calls_error(
        self, engine: Engine, name: str
    ) -> None:
        with pytest.raises(RankError, match="cancelled"):
            engine.collective_rpc("hook", args=(name, "pickled"), timeout=20)

    @pytest.mark.parametrize("name", [name for name in NAMES if name != "KeyboardInterrupt"])
    def test_in_the_engine_it_is_an_error_of_encoding_or_decoding(
        self, engine: Engine, name: str
    ) -> None:
        with pytest.raises(EncodeError, match="cancelled"):
            engine.collective_rpc("echo", args=(Hook(name, "pickled"),), timeout=20)
        with pytest.raises(DecodeError, match="cancelled"):
            engine.collective_rpc("hook", args=(name, "unpickled"), timeout=20)

    def test_what_may_be_ctrl_c_reaches_the_main_thread_and_loses_no_call(
        self, engine: Engine
    ) -> None:
        future = engine.call(
            "hook", ("KeyboardInterrupt", "unpickled"), reply_ranks=0, non_block=True
        )
        with pytest.raises(KeyboardInterrupt):
            future.result(20)
        with pytest.raises(DecodeError, match="KeyboardInterrupt"):
            future.result(20)

    def test_out_of_a_futures_callback_it_is_logged_and_the_reader_lives_on(
        self, engine: Engine, caplog: pytest.LogCaptureFixture
    ) -> None:
        def call_back(future: Any) -> None:
            raise raisers.GreenletExit("in a callback")

        for _ in range(2):
            called = threading.Event()
            future = engine.collective_rpc("echo", args=(1,), non_block=True)
            future.add_done_callback(call_back)
            future.add_done_callback(lambda future, called=called: called.set())
            assert called.wait(20)
        assert caplog.text.count("GreenletExit: in a callback") == 2

    @pytest.mark.parametrize("worker", [Raiser, ThreadedRaiser])
    def test_while_a_reply_is_finished_it_is_the_calls_error(self, worker: Any) -> None:
        with Engine(worker, world_size=1, args=("finish_reply", "GreenletExit")) as engine:
            for _ in range(2):
                with pytest.raises(RankError, match="cancelled"):
                    engine.collective_rpc("rank", timeout=20)

    def test_out_of_the_start_of_a_reply_thread_it_is_each_calls_error(self) -> None:
        arguments = ("start_reply_thread", "GreenletExit")
        with Engine(ThreadedRaiser, world_size=1, args=arguments) as engine:
            for _ in range(2):
                with pytest.raises(RankError, match="cancelled"):
                    engine.collective_rpc("rank", timeout=20)

    @pytest.mark.parametrize("name", NAMES)
    def test_out_of_a_constructor_it_is_the_starts_error(self, name: str) -> None:
        with pytest.raises(StartupError, match=rf"{name}: cancelled(.|\n)*_raise_in"):
            Engine(Raiser, world_size=1, args=("constructor", name))

    def test_out_of_a_shutdown_it_is_logged(self, capfd: pytest.CaptureFixture[str]) -> None:
        engine = Engine(Raiser, world_size=1, args=("shutdown", "GreenletExit"))
        process = engine._ranks.processes[0]
        engine.shutdown()
        assert process.exit_code == 0
        assert "the worker's shutdown has failed" in capfd.readouterr().err

    def test_out_of_failure_callbacks_it_is_logged_and_the_next_is_called(self) -> None:
        def fail(*cause: BaseException) -> None:
            raise raisers.GreenletExit("in a failure callback")

        with Engine(Raiser, world_size=1, on_cause=fail) as engine:
            called = threading.Event()
            engine.on_failure(lambda cause: called.set())
            engine.on_failure(fail)
            engine.call("leave", (1,), reply_ranks=None)
            assert called.wait(20)
            with pytest.raises(RankDied):
                engine.collective_rpc("rank", timeout=20)


class TestSystemExit:
    @pytest.fixture(autouse=True)
    def _patience(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """On a busy machine what a rank says of its exit may come long after its death."""
        monkeypatch.setattr(observer, "_EXPLAINS_S", 20.0)
        monkeypatch.setattr(blame, "EXIT_STATUS_S", 25.0)

    @pytest.mark.parametrize(
        ("code", "told"),
        [(3, "exit code 3 "), (-1, "exit code 255 "), (None, "exit code 0 "), (10**30, "exit code"),
         ("no weights", "exit code 1: no weights ")],
    )  # fmt: skip
    def test_ends_the_rank_and_is_told_with_its_text_and_place(self, code: Any, told: str) -> None:
        with Engine(Raiser, world_size=1) as engine:
            with pytest.raises(RankDied, match=r"raisers\.py.*, in leave") as caught:
                engine.collective_rpc("leave", args=(code,), timeout=20)
            assert caught.value.reason.startswith(told)
            assert caught.value.method == "leave"

    @pytest.mark.parametrize("where", ["finish_reply", "start_reply_thread"])
    def test_in_a_reply_thread_ends_the_rank_and_is_told(self, where: str) -> None:
        told = rf"exit code 1: no weights in {where}.*raisers\.py"
        # The rank may exit before the constructor returns.
        with (
            pytest.raises((RankDied, StartupError), match=told),
            Engine(ThreadedRaiser, world_size=1, args=(where, "exit")) as engine,
        ):
            engine.collective_rpc("rank", timeout=20)

    def test_before_the_engines_constructor_returns_the_start_has_failed(
        self, monkeypatch: pytest.MonkeyPatch, eventually: Any
    ) -> None:
        """Although the rank was ready: a caller of the constructor expects StartupError."""
        return_ = Consequences.raise_start_failures

        def return_late(self: Consequences) -> None:
            eventually(lambda: self.has_failed, "the rank has died")
            return_(self)

        monkeypatch.setattr(Consequences, "raise_start_failures", return_late)
        with pytest.raises(StartupError, match="rank 0: exit code 1: no weights") as caught:
            Engine(ThreadedRaiser, world_size=1, args=("start_reply_thread", "exit"))
        assert list(caught.value.causes) == [0]
        assert isinstance(caught.value.__cause__, RankDied)

    def test_out_of_a_constructor_is_told_with_its_text_and_place(self) -> None:
        told = r"exit code 1: no weights in constructor.*raisers\.py"
        with pytest.raises(StartupError, match=told):
            Engine(Raiser, world_size=1, args=("constructor", "exit"))


class TestOriginals:
    """The rank's exception, as the engine's caller gets it."""

    def _raised(self, engine: Engine, kind: str) -> RankError:
        with pytest.raises(RankError) as caught:
            engine.collective_rpc("raise_", args=(kind,), timeout=20)
        assert "raisers.py" in caught.value.remote_traceback
        return caught.value

    def test_a_class_that_only_the_rank_has_is_described(self, engine: Engine) -> None:
        error = self._raised(engine, "foreign")
        assert (error.exception, error.message) == ("Foreign", "who knows me?")
        assert error.__cause__ is None

    @pytest.mark.parametrize("how", ["sleep", "exit", "SystemExit"])
    def test_an_exceptions_own_code_is_never_run(
        self, engine: Engine, how: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TOUCHY", how)

        def tell(worker: Any) -> None:
            import os

            os.environ["TOUCHY"] = how

        engine.collective_rpc(tell)
        cause = self._raised(engine, "touchy").__cause__
        assert type(cause) is raisers.Touchy
        assert (cause.args, cause.needed) == (("touchy",), 1)

    def test_a_constructor_with_other_arguments_is_not_called(self, engine: Engine) -> None:
        cause = self._raised(engine, "detailed").__cause__
        assert type(cause) is Detailed
        assert (str(cause), cause.code, cause.reason) == ("7: too late", 7, "too late")

    def test_a_liar_is_described(self, engine: Engine) -> None:
        error = self._raised(engine, "lying")
        assert error.exception == "Liar"
        assert error.message == "(its message can't be printed: GreenletExit)"
        assert error.__cause__ is None

    def test_a_huge_one_is_cut_and_says_so(self, engine: Engine) -> None:
        error = self._raised(engine, "huge")
        assert error.message.startswith("begin")
        assert error.message.endswith("end")
        for text in (error.message, error.remote_traceback):
            assert "characters are left out" in text
            assert len(text) < 200_000
        assert error.__cause__ is None

    def test_one_that_contains_itself_arrives(self, engine: Engine) -> None:
        cause = self._raised(engine, "recursive").__cause__
        assert cause is None or type(cause.__cause__) is KeyError

    def test_a_chain_without_end_is_cut(self, engine: Engine) -> None:
        cause = self._raised(engine, "endless_chain").__cause__
        length = 0
        while cause is not None:
            assert str(cause) == str(length)
            cause, length = cause.__cause__, length + 1
        assert 10 < length < 2000

    def test_a_group_keeps_its_members_notes_and_causes(self, engine: Engine) -> None:
        cause = self._raised(engine, "group").__cause__
        assert type(cause) is ExceptionGroup
        first, second = cause.exceptions
        assert first.__notes__ == ["a note"]
        assert type(first.__cause__) is FileNotFoundError
        assert first.__cause__.filename == "weights.bin"
        assert (type(second), second.reason) == (Detailed, "second")

    def test_a_built_in_one_keeps_its_fields(self, engine: Engine) -> None:
        cause = self._raised(engine, "decode").__cause__
        assert type(cause) is UnicodeDecodeError
        assert (cause.object, cause.reason) == (b"\xff", "invalid start byte")

    def test_a_future_has_the_original_too(self, engine: Engine) -> None:
        future = engine.collective_rpc("raise_", args=("detailed",), non_block=True)
        error = future.exception(timeout=20)
        assert error is not None
        assert type(error.__cause__) is Detailed
