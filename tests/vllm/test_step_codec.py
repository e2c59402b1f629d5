"""vLLM's steps through the codec, in shapes that no CPU runs; real ones are in test_recorded_steps.py."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from batches import joined
from same import assert_same
from step_wire import Wire
from vllm import SamplingParams
from vllm.v1.core.sched.output import CachedRequestData, NewRequestData, SchedulerOutput
from vllm.v1.outputs import (
    EMPTY_MODEL_RUNNER_OUTPUT,
    KVConnectorOutput,
    LogprobsLists,
    LogprobsTensors,
    ModelRunnerOutput,
)

from mpspmd.codec.delta import DeltaDecoder, DeltaEncoder
from mpspmd.codec.steps import StepCodec
from mpspmd.vllm import step_codec as step_codec_module
from mpspmd.vllm.step_codec import reply_plan, request_plan, step_codec


def test_sampling_params_come_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    params = SamplingParams(
        temperature=0.7, stop=["end"], stop_token_ids=[7, 9], bad_words=["no"], logit_bias={3: 0.5}
    )
    params.update_from_generation_config({"eos_token_id": [2, 3]}, 2)
    params.temperature = -1.0  # which the constructor would refuse
    draws = Scheduler(0)
    step = SchedulerOutput.make_empty()
    step.num_scheduled_tokens = {"a": 8}
    step.scheduled_new_reqs = [draws.new("a", [1])]
    step.scheduled_new_reqs[0].sampling_params = params
    message = joined(DeltaEncoder(request_plan()).encode(step))
    assert_same(step, DeltaDecoder(request_plan()).decode(message)[0])

    # Another version's, of which only the constructor makes an instance, are pickled.
    monkeypatch.setattr(step_codec_module, "SamplingParams", msgspec.defstruct("Alone", ["a"]))
    params.temperature = 0.7
    message = joined(DeltaEncoder(request_plan()).encode(step))
    assert_same(step, DeltaDecoder(request_plan()).decode(message)[0])


class Scheduler:
    """Steps as V2's runner and asynchronous scheduling get them, with every optional field."""

    PLACEHOLDERS = [-1, -1, -1]  # noqa: RUF012 - one list for all, as vLLM's

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.running: dict[str, list[int]] = {}
        self.preempted: dict[str, list[int]] = {}
        self.made = 0

    def maybe(self, value: Any, chance: float = 0.2) -> Any:
        return value if self.random.random() < chance else None

    def new(self, name: str, tokens: list[int]) -> NewRequestData:
        draw = self.random
        return NewRequestData(
            req_id=name,
            prompt_token_ids=self.maybe(tokens, 0.9),
            mm_features=[],
            sampling_params=SamplingParams(seed=draw.randrange(9), logprobs=2),
            pooling_params=None,
            block_ids=([draw.randrange(999) for _ in range(3)], []),
            num_computed_tokens=draw.randrange(3) * 16,
            lora_request=None,
            prompt_embeds=self.maybe(torch.arange(600.0).reshape(2, 300)),
            prompt_is_token_ids=self.maybe([True, False]),
            prefill_token_ids=tokens,
        )

    def cached(self, names: list[str]) -> CachedRequestData:
        draw = self.random
        return CachedRequestData(
            req_ids=names,
            resumed_req_ids=set(),
            new_token_ids=[],
            all_token_ids={},
            new_block_ids=[self.maybe(([draw.randrange(999)], [1, 2])) for _ in names],
            num_computed_tokens=[len(self.running[name]) for name in names],
            num_output_tokens=[draw.choice([3, -1]) for _ in names],
        )

    def step(self) -> SchedulerOutput:
        draw = self.random
        finished = {name for name in self.running if draw.random() < 0.1}
        for name in finished:
            del self.running[name]
        preempted = {name for name in self.running if draw.random() < 0.05}
        self.preempted |= {name: self.running.pop(name) for name in preempted}
        names = list(self.running)
        cached = self.cached(names)
        new = []
        for name in list(self.preempted):  # resumed requests come as new ones
            if draw.random() < 0.3:
                self.running[name] = self.preempted.pop(name)
                new.append(self.new(name, self.running[name]))
        while len(self.running) < 20 and draw.random() < 0.5:
            self.made += 1
            # Now and then an id that has just finished.
            name = draw.choice([*finished, f"request-{self.made}"])
            if name not in self.running:
                self.running[name] = [draw.randrange(9999) for _ in range(draw.randrange(1, 30))]
                new.append(self.new(name, self.running[name]))
        counts = dict.fromkeys(names, 1) | {each.req_id: 8 for each in new}
        output = SchedulerOutput.make_empty()
        output.scheduled_new_reqs = new
        output.scheduled_cached_reqs = cached
        output.num_scheduled_tokens = counts
        output.total_num_scheduled_tokens = sum(counts.values())
        output.scheduled_spec_decode_tokens = {
            name: self.PLACEHOLDERS for name in names if draw.random() < 0.5
        }
        output.finished_req_ids = finished | {f"aborted-{self.made}"}
        output.preempted_req_ids = preempted
        output.scheduled_encoder_inputs = self.maybe({"request-1": [0, 2]}) or {}
        output.free_encoder_mm_hashes = self.maybe(["hash"]) or []
        output.has_structured_output_requests = draw.random() < 0.5
        output.num_invalid_spec_tokens = self.maybe({"request-1": 1})
        output.kv_connector_metadata = self.maybe({"load": np.arange(500)})
        output.new_block_ids_to_zero = self.maybe([3, 4])
        output.num_spec_tokens_to_schedule = draw.randrange(4)
        for name in counts:
            self.running[name].append(draw.randrange(9999))
        return output


class ModelRunner:
    """Outputs with every optional field, in an order of its own."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def run(self, step: SchedulerOutput) -> ModelRunnerOutput:
        draw = self.random
        names = list(step.num_scheduled_tokens)
        if draw.random() < 0.3:
            draw.shuffle(names)
        n = len(names)
        if n == 0:
            return EMPTY_MODEL_RUNNER_OUTPUT
        output = ModelRunnerOutput(
            req_ids=names,
            req_id_to_index={name: i for i, name in enumerate(names)},
            sampled_token_ids=[
                [draw.randrange(-1, 128_000) for _ in range(draw.choice([0, 1, 1, 3]))]
                for _ in names
            ],
        )
        if draw.random() < 0.3:
            floats = np.linspace(-1, 0, 3 * n, dtype=np.float32).reshape(n, 3)
            output.logprobs = LogprobsLists(
                np.arange(3 * n, dtype=np.int32).reshape(n, 3), floats, np.arange(n), [0, n]
            )
            tensors = LogprobsTensors(torch.arange(6), torch.ones(6), torch.arange(2))
            output.prompt_logprobs_dict = {names[0]: tensors, names[-1]: None}
        if draw.random() < 0.2:
            output.pooler_output = [*torch.arange(10.0 * n).split(10)]
            output.num_nans_in_logits = {}
            output.kv_connector_output = KVConnectorOutput({names[0]}, invalid_block_ids={7})
        return output


@pytest.mark.parametrize("seed", range(8))
def test_made_up_steps_come_out_with_replies_late_or_lost(seed: int) -> None:
    """A reply is encoded when its rank has decoded the next request, or the one after."""
    scheduler, twin, runner = Scheduler(seed), Scheduler(seed), ModelRunner(seed)
    wire, draw = Wire(), random.Random(seed)
    due: list[tuple[int, ModelRunnerOutput]] = []
    for step in range(1, 120):
        sent = scheduler.step()
        expected = twin.step()
        due.append((step, runner.run(sent)))
        for received in wire.send(step, sent):
            assert_same(expected, received)
            _spoil(received)
        _spoil(sent)
        while len(due) > draw.randrange(3):
            number, output = due.pop(0)
            received = wire.reply(number, output, arrives=draw.random() < 0.9)
            if received is not None:
                assert_same(output, received)
                _spoil(received)
    assert not EMPTY_MODEL_RUNNER_OUTPUT.req_ids


def _spoil(value: Any) -> None:
    """What a runner or a scheduler may do to its own."""
    if isinstance(value, SchedulerOutput):
        cached = value.scheduled_cached_reqs
        for blocks in cached.new_block_ids:
            for ids in blocks or ():
                ids.append(-1)
        for each in (cached.req_ids, cached.num_computed_tokens, cached.num_output_tokens):
            each.append(each[0] if each else 0)
        for new in value.scheduled_new_reqs:
            new.block_ids[0].append(7)
        value.num_scheduled_tokens.clear()
        value.finished_req_ids.add("spoiled")
    else:
        for tokens in value.sampled_token_ids:
            tokens.append(-7)
        value.req_ids.clear()
        value.req_id_to_index.clear()


@dataclass
class LaterSchedulerOutput(SchedulerOutput):
    """As another version may have it."""

    batch_tag: str | None = None
    weights: list[Any] = field(default_factory=list)


@dataclass
class LaterOutput(ModelRunnerOutput):
    energy: Any = None


def _later_plan() -> Any:
    return request_plan(LaterSchedulerOutput)


def _later_reply_plan() -> Any:
    return reply_plan(LaterOutput)


def test_fields_of_a_later_vllm_come_along() -> None:
    wire = Wire(StepCodec(LaterSchedulerOutput, _later_plan, LaterOutput, _later_reply_plan))
    for step in range(1, 6):
        made = vars(Scheduler(step).step())
        sent = LaterSchedulerOutput(**made, batch_tag=str(step), weights=[np.ones(step * 200)])
        for received in wire.send(step, sent):
            assert_same(sent, received)
        output = LaterOutput(["x"], {"x": 0}, energy={"joule": step})
        assert_same(output, wire.reply(step, output))


def test_every_field_has_a_way() -> None:
    """What isn't hot is plain; the hot names are those of this vLLM."""
    from dataclasses import fields

    from mpspmd.vllm import step_codec as hot

    for cls, names in (
        (SchedulerOutput, hot.STEP),
        (CachedRequestData, hot.CACHED_REQUESTS),
        (ModelRunnerOutput, hot.OUTPUT),
    ):
        assert set(names) <= {each.name for each in fields(cls)}


@pytest.mark.parametrize("scenario", ["steady", "churn", "prefill"])
def test_what_the_benchmark_compares_does_the_same(scenario: str) -> None:
    from benchmarks.codecs import CODECS
    from benchmarks.scenarios import SCENARIOS
    from benchmarks.step_codec import Runner

    for codec in (each() for each in CODECS):
        steps, runner = SCENARIOS[scenario](20), Runner()
        for _ in range(20):
            step = steps.next()
            output = runner.run(step)
            assert_same(step, codec.decode_request(codec.encode_request(step)))
            assert_same(output, codec.decode_reply(codec.encode_reply(output)))


def test_the_benchmark_has_a_row_for_each_case(tmp_path: Path) -> None:
    from benchmarks import report
    from benchmarks.step_codec import parse, run

    options = ["--batch", "1,3", "--scenario", "steady,churn", "--rounds", "1", "--steps", "30"]
    results = run(parse(options))
    rows = results["results"]
    cases = {(row["backend"], row["scenario"], row["batch"], row["direction"]) for row in rows}
    assert len(cases) == len(rows) == 3 * 2 * 2 * 2
    assert all(0 < row["p50_us"] <= row["p99_us"] and row["bytes"] > 0 for row in rows)
    document = tmp_path / "figures.md"
    report.write(document, {"step-codec": report.Section("Steps", "", "python -m x", results)})
    text = document.read_text()
    assert text.count("| steady | 3 | reply | pickle5 |") == 1
    assert (
        "| a request of 1 steady requests, encoding and decoding, p50, against `pickle5` |" in text
    )
    assert (tmp_path / "figures/step-codec.png").exists()


def test_the_example_in_the_documents_is_what_is_sent() -> None:
    def step(ids: str, computed: list[int], blocks: list[Any], output: int, ended: str) -> Any:
        made = SchedulerOutput.make_empty()
        made.scheduled_cached_reqs = CachedRequestData(
            req_ids=list(ids),
            resumed_req_ids=set(),
            new_token_ids=[],
            all_token_ids={},
            new_block_ids=blocks,
            num_computed_tokens=computed,
            num_output_tokens=[output] * len(ids),
        )
        made.num_scheduled_tokens = dict.fromkeys(ids, 1)
        made.total_num_scheduled_tokens = len(ids)
        made.finished_req_ids = set(ended)
        return made

    engine = step_codec().engine_end()
    messages = []
    for number, made in enumerate(
        [
            step("abc", [5, 9, 31], [None] * 3, 1, ""),
            step("abc", [6, 10, 32], [None, None, ([7],)], 2, ""),
            step("ab", [7, 11], [None, None], 3, "c"),
        ],
        start=1,
    ):
        messages.append(engine.encode(number, "execute_model", (made, 0), {}, 0))
        engine.sent()
    design = (Path(__file__).parents[2] / "docs" / "explain" / "codec.md").read_text()
    head, *rows = re.findall(r"^\| (field|`\w+`) \| (.*) \| (.*) \| (.*) \|$", design, re.MULTILINE)
    sizes = [int(size) for cell in head[1:] for size in re.findall(r"\d+", cell)]
    assert sizes == [len(message) for message in messages]
    rows = [row for row in rows if row[1].startswith("`0")]
    assert len(rows) == 7
    for row in rows:
        for cell, message in zip(row[1:], messages, strict=True):
            assert " ".join(re.findall(r"`([0-9a-f ]+)`", cell)) in message.hex(" ")
