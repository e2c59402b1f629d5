"""A recorded run of vLLM replays to the same replies without vLLM's front end, scheduler and engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from vllm.v1.core.sched.output import SchedulerOutput

from mpspmd.codec.delta import DeltaDecoder
from mpspmd.recording.layout import Type
from mpspmd.recording.reader import Recording
from mpspmd.vllm.step_codec import request_plan
from mpspmd.wire import KIND_STEP

HERE = Path(__file__).parent


def _run(environ: dict[str, str], *command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, command)],
        capture_output=True,
        text=True,
        timeout=1000,
        env=environ,
    )


def _steps(path: Path) -> list[SchedulerOutput]:
    decoder = DeltaDecoder(request_plan())
    with Recording(str(path)) as recording:
        assert recording.scan().error is None
        return [
            decoder.decode(record.payload)[0]
            for record in recording.records()
            if record.type == Type.REQUEST and record.kind & KIND_STEP
        ]


def _n_chunked(steps: list[SchedulerOutput]) -> int:
    """How many prompts were computed in several steps."""
    return sum(
        request.num_computed_tokens + step.num_scheduled_tokens[request.req_id]
        < len(request.prompt_token_ids)
        for step in steps
        for request in step.scheduled_new_reqs
    )


def _n_aborted(steps: list[SchedulerOutput]) -> int:
    """How many requests ended before they had all of their tokens, and not because of a grammar."""
    least, computed, aborted = dict[str, int](), dict[str, int](), 0
    for step in steps:
        for key in step.finished_req_ids:
            aborted += computed.get(key, 0) < least.get(key, 0)
        for new in step.scheduled_new_reqs:
            if new.sampling_params.structured_outputs is None:
                least[new.req_id] = len(new.prompt_token_ids) + new.sampling_params.max_tokens - 1
            computed[new.req_id] = new.num_computed_tokens + step.num_scheduled_tokens[new.req_id]
        cached = step.scheduled_cached_reqs
        for key, before in zip(cached.req_ids, cached.num_computed_tokens, strict=True):
            computed[key] = before + step.num_scheduled_tokens[key]
    return aborted


@pytest.mark.slow  # two starts of vLLM
def test_a_recorded_run_with_lora_chunks_and_aborts_replays_to_the_same_replies(
    model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "requests.rec"
    environ = os.environ | {"MPSPMD_RECORD_REQUESTS": str(path)}
    done = _run(environ, HERE / "record_requests.py", model, tmp_path)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]

    steps = _steps(path)
    new = [request for step in steps for request in step.scheduled_new_reqs]
    assert any(request.lora_request for request in new)
    assert _n_chunked(steps) > 0
    assert _n_aborted(steps) > 0

    # Nothing of the recorded run's environment but the place of the interpreter.
    bare = {
        name: text for name, text in os.environ.items() if not name.startswith(("VLLM_", "MPSPMD_"))
    }
    done = _run(bare, "-m", "mpspmd", "replay", path, "--vllm", "--json")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]
    found = json.loads(done.stdout)
    assert found["different"] == 0
    assert found["same"] > len(steps)
    assert found["recorded_digest"] == found["replayed_digest"]
    assert found["requests_agree"] is True
    assert found["times"]["execute_model"]["n"] >= len(steps) - 1
