"""What a failed step has transferred isn't lost: it comes with the next step's output."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted_steps import run, start, step, submit
from vllm.distributed.kv_transfer.kv_connector.utils import KVOutputAggregator

from mpspmd.errors import RankError
from mpspmd.vllm.compat import defers_outputs

pytestmark = pytest.mark.skipif(
    not defers_outputs(KVOutputAggregator), reason="vLLM keeps it since 0.33"
)


@pytest.fixture(scope="module")
def started(model: Path) -> Iterator[Any]:
    executor = start(model, asynchronous=True)
    yield executor
    executor.shutdown()


@pytest.fixture
def executor(started: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A request is sent when both ranks have said so."""
    monkeypatch.setattr(started, "kv_output_aggregator", KVOutputAggregator(2))
    return started


def sent(output: Any) -> set[str] | None:
    return output.kv_connector_output.finished_sending


@pytest.mark.parametrize("how", ["", " oddly"], ids=["", "exception can't be pickled"])
@pytest.mark.parametrize("ranks", [[0], [1], [0, 1]], ids=str)
def test_what_ranks_have_sent_whose_late_output_fails_comes_with_the_next_step(
    executor: Any, ranks: list[int], how: str
) -> None:
    failing = step("a", "sent x", *(f"lose {rank}{how}" for rank in ranks))
    with pytest.raises(RankError, match="Odd" if how else "ValueError: lost on the device"):
        run(executor, failing)
    assert sent(run(executor, step("b", "sent y"))) == {"x", "y"}
    assert not sent(run(executor, step("c"))), "once"


@pytest.mark.parametrize("rank", [0, 1])
def test_what_a_rank_has_sent_that_replies_after_the_failure_is_not_lost(
    executor: Any, rank: int, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    failing = step("a", "sent x", f"lose {rank}", f"linger {go} {1 - rank}")
    with pytest.raises(RankError, match=f"rank {rank} raised ValueError"):
        run(executor, failing)
    go.touch()
    # With this the late reply is read, as with vLLM's own command to go on.
    executor.collective_rpc("take_events")
    assert sent(run(executor, step("b"))) == {"x"}


def test_a_forward_pass_that_fails_on_one_rank_leaves_the_others_share(executor: Any) -> None:
    with pytest.raises(RankError, match="the forward pass of a"):
        run(executor, step("a", "raise 1", "sent x"))
    executor.collective_rpc("take_events")
    assert not sent(run(executor, step("b"))), "rank 1 hasn't sent it"
    assert sent(run(executor, step("c", "sent x 1"))) == {"x"}


def test_steps_that_were_sent_before_the_failure_was_known_are_salvaged_too(executor: Any) -> None:
    failed = submit(executor, step("a", "raise 1"))[1]
    refused = submit(executor, step("b", "sent x 0"))[1]
    for future in (failed, refused):
        with pytest.raises(RankError):
            future.result()
    executor.collective_rpc("take_events")
    assert sent(run(executor, step("c", "sent x 1"))) == {"x"}


def test_a_long_row_of_failures_keeps_a_limited_number_of_steps(executor: Any) -> None:
    for _ in range(70):
        with pytest.raises(RankError):
            run(executor, step("a", "raise 1"))
    assert len(executor._steps._salvage._failed) <= 64
    assert len(executor._engine._table.kept) <= 64
