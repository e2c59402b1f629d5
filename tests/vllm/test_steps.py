"""A step's two calls and its one reply, with workers that do as they are told."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scripted_steps
from scripted_steps import run, start, submit

from mpspmd.errors import ConfigError, RankError, StepTimeout


@pytest.fixture(scope="module")
def synchronous(model: Path) -> Iterator[Any]:
    executor = start(model, asynchronous=False)
    yield executor
    executor.shutdown()


@pytest.fixture(scope="module")
def asynchronous(model: Path) -> Iterator[Any]:
    """As with V2's runner on a GPU: outputs are finished by a thread."""
    executor = start(model, asynchronous=True)
    yield executor
    executor.shutdown()


@pytest.fixture(params=["synchronous", "asynchronous"])
def executor(request: pytest.FixtureRequest, halves: bool) -> Any:
    made = request.getfixturevalue(request.param)
    made.collective_rpc("take_events")
    return made


@pytest.fixture(params=[False, True], ids=["whole", "halves"])
def halves(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether a step may have a grammar, and so takes a second request for its sampling."""
    monkeypatch.setattr(sys.modules[__name__], "MAY_HAVE_GRAMMAR", request.param)
    return bool(request.param)


in_halves = pytest.mark.parametrize("halves", [True], indirect=True, ids=["halves"])
MAY_HAVE_GRAMMAR = False


def step(name: str, *instructions: str, tokens: int = 1) -> Any:
    return scripted_steps.step(
        name, *instructions, tokens=tokens, may_have_grammar=MAY_HAVE_GRAMMAR
    )


def grammar(*bits: int) -> Any:
    from vllm.v1.core.sched.output import GrammarOutput

    return GrammarOutput(["a"], np.array([bits], dtype=np.int32))


def events(executor: Any) -> list[list[str]]:
    """What the workers have been called for since the last time, per rank."""
    return [
        [event for event in each if not event.startswith("get_output")]
        for each in executor.collective_rpc("take_events")
    ]


def replies(executor: Any, rank: int) -> int:
    return executor._engine._channel.status.line(rank).snapshot()["replies"]


def test_without_a_folder_for_its_watchdog_a_rank_does_nothing_for_it(synchronous: Any) -> None:
    hooks = synchronous.collective_rpc(
        lambda worker: (worker.while_waiting, "finish_reply" in vars(worker))
    )
    assert hooks == [(None, False)] * 2


@in_halves
def test_sampling_is_asked_for_before_the_forward_pass_has_ended(
    executor: Any, tmp_path: Path
) -> None:
    file = tmp_path / "go"
    execute = executor.execute_model(step("a", f"wait {file}"), non_block=True)
    assert execute.done()
    assert execute.result() is None
    # It can't have ended: it waits for a file that is made when sampling has been asked for.
    sample = executor.sample_tokens(grammar(1, 2), non_block=True)
    assert not sample.done()
    file.touch()
    output = sample.result(20)
    assert output.sampled_token_ids == [[0, 1]]
    assert output.prompt_logprobs_dict == {"note": [[1, 2]]}
    assert events(executor) == [["execute a", "executed a", "sample a"]] * 2


def test_a_step_has_one_reply(executor: Any, eventually: Any) -> None:
    # A reply is counted just after it is sent, so is the last one of the fixture; later on a busy machine.
    for pause_s in (0.1, 1.0, 5.0):
        time.sleep(pause_s)
        before = [replies(executor, rank) for rank in (0, 1)]
        for _ in range(5):
            run(executor, step("a"))
        enough = before[0] + 5
        eventually(lambda least=enough: replies(executor, 0) >= least, "every reply is counted")
        after = [replies(executor, rank) for rank in (0, 1)]
        if after == [enough, before[1]]:
            break
    assert after == [enough, before[1]]


def test_outputs_are_the_same_without_early_answers(
    executor: Any, halves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    bits = grammar(4) if halves else None
    steps = [step("a"), step("b", "answer"), step("c", tokens=3), step("d", tokens=0)]
    early = [run(executor, each, bits) for each in steps]
    called = events(executor)
    monkeypatch.setattr(executor._steps, "_answers_early", False)
    assert [run(executor, each, bits) for each in steps] == early
    assert events(executor) == called


def test_a_step_without_grammar_is_one_request(asynchronous: Any) -> None:
    sent = asynchronous._engine._reader.steps
    for _ in range(5):
        assert run(asynchronous, step("a")).req_ids == ["a"]
    assert asynchronous._engine._reader.steps == sent + 5


def test_a_grammar_that_the_scheduler_has_not_announced_is_refused(
    asynchronous: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="MPSPMD_ANSWER_EARLY=0"):
        run(asynchronous, step("a"), grammar(4))
    # Of another scheduler than vLLM's own it isn't expected to.
    monkeypatch.setattr(asynchronous._steps, "_flag_tells", False)
    assert run(asynchronous, step("a"), grammar(4)).prompt_logprobs_dict == {"note": [[4]]}


def test_an_output_of_execute_model_is_the_steps_and_nothing_is_sampled(executor: Any) -> None:
    execute, sample = submit(executor, step("a", "answer"))
    assert execute.result() is None
    assert sample.result().prompt_logprobs_dict == {"note": "execute"}
    assert events(executor) == [["execute a"]] * 2


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("half", ["raise", "sampling"])
def test_an_exception_on_one_rank_is_the_samplings_outcome(
    executor: Any, half: str, rank: int, tmp_path: Path
) -> None:
    # The other rank doesn't get further, as in a collective.
    hang = f"{'wait' if half == 'raise' else 'linger'} {tmp_path / 'go'} {1 - rank}"
    with pytest.raises(RankError, match=rf"rank {rank} raised ValueError") as caught:
        run(executor, step("a", f"{half} {rank}", hang))
    (tmp_path / "go").touch()
    assert "scripted_worker.py" in caught.value.remote_traceback
    assert caught.value.rank == rank
    called = events(executor)
    # A forward pass that has failed isn't sampled.
    assert ("sample a" in called[rank]) == (half == "sampling")
    assert "sample a" in called[1 - rank]
    # Now that the failure is known, steps run again.
    assert run(executor, step("b")).req_ids == ["b"]
    assert events(executor) == [["execute b", "executed b", "sample b"]] * 2


@pytest.mark.parametrize("rank", [0, 1])
def test_steps_that_were_sent_before_a_failure_was_known_are_refused(
    executor: Any, rank: int, tmp_path: Path
) -> None:
    first = submit(executor, step("a", f"raise {rank}", f"wait {tmp_path / 'go'} {1 - rank}"))[1]
    second = submit(executor, step("b"))[1]
    with pytest.raises(RankError, match="ValueError: the forward pass of a"):
        first.result()
    # Not yet known to whoever asks for the second.
    with pytest.raises(RankError, match=r"StepRefused: .*the forward pass of a"):
        second.result()
    (tmp_path / "go").touch()
    assert "execute b" not in events(executor)[rank]
    assert submit(executor, step("c"))[1].result().req_ids == ["c"]
    assert events(executor) == [["execute c", "executed c", "sample c"]] * 2


def test_a_failure_that_comes_after_its_steps_reply_fails_the_next_step(
    executor: Any, tmp_path: Path, eventually: Any
) -> None:
    first = submit(executor, step("a", f"wait {tmp_path / 'go'} 1", "raise 1"))[1]
    assert first.result().req_ids == ["a"], "rank 0 needs nothing of rank 1 in this one"
    (tmp_path / "go").touch()
    with pytest.raises(RankError, match=r"rank 1 raised StepRefused.*the forward pass of a"):
        run(executor, step("b", f"wait {tmp_path / 'never'} 0"))
    (tmp_path / "never").touch()
    assert run(executor, step("c")).req_ids == ["c"]


@in_halves
def test_a_failed_rank_is_reported_while_another_hangs(executor: Any, tmp_path: Path) -> None:
    file = tmp_path / "go"
    # As in a collective: rank 0, which has the output, waits for rank 1.
    executor.execute_model(step("a", "raise 1", f"wait {file} 0"), non_block=True)
    with pytest.raises(RankError, match="rank 1 raised ValueError"):
        executor.take_draft_token_ids()
    with pytest.raises(RankError, match="rank 1 raised ValueError"):
        executor.sample_tokens(None)
    file.touch()
    assert run(executor, step("b")).req_ids == ["b"]


@in_halves
def test_draft_tokens_can_be_taken_between_the_halves(executor: Any) -> None:
    executor.execute_model(step("a"), non_block=True)
    assert executor.take_draft_token_ids().draft_token_ids == [[0]]
    assert executor.sample_tokens(None).req_ids == ["a"]
    assert events(executor) == [["execute a", "executed a", "drafts", "sample a"]] * 2


def test_a_step_that_nobody_sampled_is_given_up(executor: Any) -> None:
    executor.execute_model(step("a"), non_block=True)
    assert run(executor, step("b")).req_ids == ["b"]
    assert not executor._engine._table.pending


def test_what_waits_for_its_answer_gets_the_real_one(executor: Any) -> None:
    assert executor.execute_model(step("a", "answer")).req_ids == ["a"]
    assert executor.execute_model(step("b")) is None
    assert executor.sample_tokens(None).req_ids == ["b"]
    assert executor.execute_model(step("c", tokens=0), non_block=True).result().req_ids == ["c"]
    executor.execute_dummy_batch()
    assert events(executor)[0][-1] == "dummy"


def test_the_reply_for_both_halves_has_the_time_of_both(
    executor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor._steps, "_timeout_s", 0.5)
    file = tmp_path / "go"
    began = time.monotonic()
    late = submit(executor, step("late", f"wait {file}"))[1]
    with pytest.raises(
        StepTimeout, match=r"(?s)(sample_step|execute_model) .* timed out.*rank 1 .*running"
    ) as caught:
        late.result()
    assert isinstance(caught.value, TimeoutError)
    assert time.monotonic() - began >= 1.0
    file.touch()
    # The late reply is nobody's.
    assert run(executor, step("b")).req_ids == ["b"]


@in_halves
def test_draft_tokens_that_do_not_come_have_the_time_of_a_forward_pass(
    executor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor._steps, "_timeout_s", 0.3)
    executor.execute_model(step("a", f"wait {tmp_path / 'go'}"), non_block=True)
    with pytest.raises(StepTimeout, match="take_draft_token_ids"):
        executor.take_draft_token_ids()
    (tmp_path / "go").touch()
    assert executor.sample_tokens(None).req_ids == ["a"]


def test_a_reply_that_is_there_beats_the_deadline(
    executor: Any, monkeypatch: pytest.MonkeyPatch, eventually: Any
) -> None:
    monkeypatch.setattr(executor._steps, "_timeout_s", 1.0)
    before = replies(executor, 0)
    futures = [submit(executor, step(name))[1] for name in "ab"]
    eventually(lambda: replies(executor, 0) >= before + 2, "both replies")
    time.sleep(2.1)
    assert [future.result().req_ids for future in futures] == [["a"], ["b"]]


def test_every_ranks_output_is_aggregated_once_in_the_order_of_the_steps(
    executor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vllm.distributed.kv_transfer.kv_connector.utils import KVOutputAggregator

    # A request is sent when both ranks have said so, be it in different steps.
    monkeypatch.setattr(executor, "kv_output_aggregator", KVOutputAggregator(2))
    futures = [
        submit(executor, step("a", "sent x 0"))[1],
        submit(executor, step("b", "sent x 1", "sent y"))[1],
        submit(executor, step("c", "answer", "sent z"))[1],
    ]
    last = futures[2].result().kv_connector_output.finished_sending
    first, second = (future.result().kv_connector_output.finished_sending for future in futures[:2])
    assert not first
    assert (second, last) == ({"x", "y"}, {"z"})
    assert run(executor, step("d", "sent w")).kv_connector_output.finished_sending == {"w"}


def test_an_exception_with_aggregators_is_the_samplings_outcome(
    executor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vllm.distributed.kv_transfer.kv_connector.utils import KVOutputAggregator

    monkeypatch.setattr(executor, "kv_output_aggregator", KVOutputAggregator(2))
    for rank in (0, 1):
        with pytest.raises(RankError, match=rf"rank {rank} raised ValueError"):
            run(executor, step("a", f"raise {rank}", "sent x"))
        assert run(executor, step("b", "sent y")).req_ids == ["b"]
    assert not executor._steps._to_aggregate


def test_an_output_is_finished_once_by_the_reply_thread_of_the_rank_that_replies(
    asynchronous: Any,
) -> None:
    asynchronous.collective_rpc("take_events")
    futures = [
        submit(asynchronous, step(name, *how))[1] for name, how in [("a", ()), ("b", ["answer"])]
    ]
    assert [future.result().req_ids for future in futures] == [["a"], ["b"]]
    finished = [
        [event for event in each if event.startswith("get_output")]
        for each in asynchronous.collective_rpc("take_events")
    ]
    assert finished == [["get_output mpspmd-replies"] * 2, []]


def test_the_next_steps_forward_pass_runs_while_an_output_is_finished(
    asynchronous: Any, tmp_path: Path
) -> None:
    file = tmp_path / "go"
    first = submit(asynchronous, step("a"))[1]
    second = submit(asynchronous, step("b", f"wait {file}"))[1]
    assert first.result(20).req_ids == ["a"], "though the second step's forward pass still runs"
    file.touch()
    assert second.result().req_ids == ["b"]
