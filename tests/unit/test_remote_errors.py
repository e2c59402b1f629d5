"""What the engine's caller sees when a rank raises. The engine stays usable each time."""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import workers

from mpspmd import Engine
from mpspmd._ring import pack
from mpspmd.errors import DecodeError, RankDied, RankError, UnknownMethod
from mpspmd.wire import KIND_PACKED, KIND_REQUEST

pytestmark = pytest.mark.timeout(30)


@pytest.fixture(autouse=True)
def _stays_usable(engine: Engine) -> Iterator[None]:
    yield
    if engine.failure is None:
        assert engine.collective_rpc("rank", timeout=20) == [0, 1]


def test_an_exception_arrives_with_rank_method_step_cause_and_traceback(engine: Engine) -> None:
    with pytest.raises(RankError) as caught:
        engine.collective_rpc("fail_on", args=(1, "no luck"))
    error = caught.value
    assert (error.rank, error.method, error.exception) == (1, "fail_on", "ValueError")
    assert error.step > 0
    assert error.message == "no luck"
    assert type(error.__cause__) is ValueError
    assert error.__cause__.args == ("no luck",)
    assert "workers.py" in error.remote_traceback
    assert "raise ValueError(message)" in error.remote_traceback
    for fact in ("rank 1", "fail_on", "ValueError", "no luck", "raise ValueError(message)"):
        assert fact in str(error)


def test_an_exception_in_a_callable_names_the_callable(engine: Engine) -> None:
    def divide(worker: Any) -> float:
        return 1 / 0

    with pytest.raises(RankError, match="divide") as caught:
        engine.collective_rpc(divide)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_rank_that_does_not_reply_may_not_fail_unheard(engine: Engine, go: Path) -> None:
    with pytest.raises(RankError, match="not asked") as caught:
        engine.call("fail_on", (1, "not asked"), {"others_wait_for": str(go)}, reply_ranks=0)
    go.touch()
    assert caught.value.rank == 1
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize("others_take", [0.0, 0.005, 0.01])
def test_nor_if_the_reply_comes_before_the_call_has_failed(
    engine: Engine, caplog: pytest.LogCaptureFixture, eventually: Any, others_take: float
) -> None:
    told: list[str] = []
    for number in range(10):
        try:
            engine.call(
                "fail_on", (1, f"not asked {number}"), {"others_take": others_take}, reply_ranks=0
            )
        except RankError as error:
            told.append(str(error))
    for number in range(10):
        message = f": not asked {number}\n"
        eventually(lambda message=message: message in caplog.text + "".join(told), message)


def test_a_failure_is_not_the_next_calls_answer(engine: Engine) -> None:
    with pytest.raises(RankError):
        engine.call("fail_on", (1, "a"), {"others_take": 0.2}, reply_ranks="all")
    assert engine.collective_rpc("echo", args=("own",)) == ["own", "own"]


def test_an_exception_that_cannot_be_pickled_arrives_as_its_description(engine: Engine) -> None:
    with pytest.raises(RankError) as caught:
        engine.collective_rpc("fail_unpicklably", timeout=20)
    assert caught.value.exception == "Unpicklable"
    assert caught.value.__cause__ is None
    assert "fail_unpicklably" in caught.value.remote_traceback


def test_an_exception_without_a_printable_message_arrives(engine: Engine) -> None:
    with pytest.raises(RankError) as caught:
        engine.collective_rpc("fail_without_words", timeout=20)
    assert caught.value.exception == "Speechless"


@pytest.mark.parametrize("reply_ranks", [1, 0])
def test_a_message_that_is_not_utf8_arrives(engine: Engine, go: Path, reply_ranks: int) -> None:
    name, waits = b"caf\xe9".decode(errors="surrogateescape"), {"others_wait_for": str(go)}
    with pytest.raises(RankError) as caught:
        engine.call("fail_on", (1, name), waits, reply_ranks=reply_ranks, timeout=20)
    go.touch()
    assert caught.value.rank == 1
    assert caught.value.message.startswith("caf")


@pytest.mark.parametrize("reply_ranks", ["all", 0])
def test_an_unknown_method_is_refused_by_name(engine: Engine, reply_ranks: Any) -> None:
    with pytest.raises(UnknownMethod, match="no_such_method") as caught:
        engine.call("no_such_method", reply_ranks=reply_ranks)
    assert isinstance(caught.value, AttributeError)


def test_an_unknown_method_is_one_whichever_rank_notices_first() -> None:
    with (
        Engine(workers.Shy, world_size=2) as engine,
        pytest.raises(UnknownMethod, match="no_such_method"),
    ):
        engine.call("no_such_method", reply_ranks=0)


def test_an_attribute_error_inside_a_method_is_no_unknown_method(engine: Engine) -> None:
    with pytest.raises(RankError) as caught:
        engine.collective_rpc(lambda worker: worker.no_such_attribute)
    assert not isinstance(caught.value, UnknownMethod)
    assert isinstance(caught.value.__cause__, AttributeError)


def test_a_methods_name_that_is_no_text_is_refused(engine: Engine) -> None:
    with pytest.raises(UnknownMethod):
        engine.collective_rpc("\udcff", timeout=20)


def test_a_result_that_cannot_be_sent_is_an_error_and_no_hang(engine: Engine) -> None:
    with pytest.raises(RankError, match="lock") as caught:
        engine.collective_rpc("lock", timeout=20)
    assert caught.value.method == "lock"
    assert caught.value.exception == "EncodeError"


def test_a_result_that_cannot_be_sent_for_an_unprintable_reason_is_an_error(engine: Engine) -> None:
    with pytest.raises(RankError, match=r"Unsayable .* message can't be printed: RuntimeError"):
        engine.collective_rpc("unsayable", timeout=20)


def test_a_result_that_cannot_be_rebuilt_is_an_error_and_no_hang(engine: Engine) -> None:
    with pytest.raises(DecodeError, match="this can't be rebuilt"):
        engine.collective_rpc("unbuildable", timeout=20)


def test_an_argument_that_no_rank_can_rebuild_is_an_error_and_no_hang(engine: Engine) -> None:
    with pytest.raises(RankError, match="this can't be rebuilt") as caught:
        engine.collective_rpc("echo", args=(workers.Unbuildable(),), timeout=20)
    assert caught.value.exception == "DecodeError"


LONG = 1200 << 10  # a text that pack() leaves to pickle
NO_REQUESTS = {
    "one argument too many": (pack(("echo", (), {}, "all", None, 1)), "too many values"),
    "one that pack() never makes": (
        b"\x01(\x01s" + struct.pack("<I", LONG) + b"x" * LONG,
        "cut short, or isn't one",
    ),
}


@pytest.mark.parametrize("what", NO_REQUESTS)
def test_a_request_that_is_none_is_an_error_and_no_hang(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    message, reason = NO_REQUESTS[what]
    packed = (KIND_REQUEST | KIND_PACKED, message, None)
    with monkeypatch.context() as patch:
        patch.setattr(engine._sending, "_packs", False)  # it would pack plain requests itself
        patch.setattr(engine._sending._encoder, "encode", lambda *request: packed)
        with pytest.raises(RankError, match=reason) as caught:
            engine.collective_rpc("echo", timeout=20)
    assert caught.value.method == "(decoding the request)"


def test_a_failing_call_without_replies_is_logged_and_harms_nobody(
    engine: Engine, caplog: pytest.LogCaptureFixture, eventually: Any
) -> None:
    engine.call("fail", ("unheard",), reply_ranks=None)
    assert engine.collective_rpc("rank") == [0, 1]
    eventually(lambda: caplog.text.count("raise ValueError(message)") == 2, "both ranks' faults")
    assert "unheard" in caplog.text


def test_a_worker_that_exits_has_its_exit_code_named() -> None:
    failed = threading.Event()
    with Engine(workers.Calculator, world_size=2) as engine:
        engine.on_failure(lambda cause: failed.set())
        with pytest.raises(RankDied, match="exit code 3") as caught:
            engine.call("leave", (3,), reply_ranks=0, timeout=20)
        assert caught.value.method == "leave"
        assert failed.wait(20)
