"""Steps that a real scheduler has made come out on each rank as they went in: field by field, type by type.

`make test-versions` records and replays those of each version.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from same import assert_same
from step_wire import Wire

HERE = Path(__file__).parent


def replay(records: list[tuple[int, str, bytes]]) -> Counter[str]:
    """Carries all of it; what has come by."""
    wire, seen = Wire(), Counter[str]()
    for step, kind, pickled in records:
        value = pickle.loads(pickled)
        seen[kind] += 1
        if kind == "step":
            for received in wire.send(step, value):
                assert_same(value, received, f"step {step}")
            cached = value.scheduled_cached_reqs
            seen["pickled bytes"] += len(pickled)
            seen["resumed"] += len(cached.resumed_req_ids)
            seen["drafts"] += len(value.scheduled_spec_decode_tokens)
            seen["prefix hits"] += sum(
                new.num_computed_tokens > 0 for new in value.scheduled_new_reqs
            )
            seen["chunks"] += sum(output == 0 for output in cached.num_output_tokens)
            seen["requests"] = max(seen["requests"], len(value.num_scheduled_tokens))
            seen["all tokens"] += len(cached.all_token_ids)
            seen["adapters"] += sum(
                new.lora_request is not None for new in value.scheduled_new_reqs
            )
            seen["grammars"] += value.has_structured_output_requests
        elif step in wire.bases:
            assert_same(value, wire.reply(step, value), f"output {step}")
            seen["logprobs"] += value.logprobs is not None
    seen["bytes"] = sum(wire.sizes)
    return seen


def record(model: Path, out: Path, tp: int, pp: int, variant: str) -> Counter[str]:
    command = [sys.executable, HERE / "record_steps.py", model, str(tp), str(pp), variant, out]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1000)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]
    seen = replay(pickle.loads(out.read_bytes()))
    assert seen["step"] > 50
    assert seen["output"] > 50
    assert seen["requests"] >= 20
    for what in ("prefix hits", "chunks", "logprobs"):
        assert seen[what], f"no {what} in {seen}"
    assert seen["bytes"] < seen["pickled bytes"] / 3
    return seen


def test_recorded_steps_come_out_as_they_went_in(model: Path, tmp_path: Path) -> None:
    seen = record(model, tmp_path / "steps", 1, 1, "plain")
    assert seen["resumed"], seen


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tp", "pp", "variant", "came_by"),
    [
        (2, 1, "ngram", ["drafts"]),
        (1, 2, "plain", ["all tokens"]),
        (2, 1, "guided", ["adapters", "grammars"]),
    ],
)
def test_recorded_steps_of_several_ranks(
    model: Path, tmp_path: Path, tp: int, pp: int, variant: str, came_by: list[str]
) -> None:
    seen = record(model, tmp_path / "steps", tp, pp, variant)
    for what in came_by:
        assert seen[what], f"no {what} in {seen}"
