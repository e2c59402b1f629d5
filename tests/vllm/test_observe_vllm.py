"""What mpspmd-trace says of a real vLLM: who makes the others wait, and a timeline of each step."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from chrome_traces import check

from mpspmd.observe.straggler import MIN_STEPS

STEPS = 100
SECONDS = 3


def trace(llm: Any, *arguments: str) -> list[str]:
    """The command."""
    rank = llm.collective_rpc(lambda worker: __import__("os").getpid())[0]
    engine = psutil.Process(rank).ppid()
    return [sys.executable, "-m", "mpspmd", "trace", str(engine), *arguments]


def generate(llm: Any, steps: int) -> None:
    from vllm import SamplingParams

    prompts = [{"prompt_token_ids": [5, 6, 7 + n]} for n in range(4)]
    sampling = SamplingParams(max_tokens=steps, ignore_eos=True, temperature=0)
    llm.generate(prompts, sampling, use_tqdm=False)


def straggler(llm: Any) -> str:
    """What `trace --summary` says of the steps of some seconds, while they go on."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        generate(llm, 20)
    command = trace(llm, "--summary", "--last", f"{SECONDS}s")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            generate(llm, 20)
        assert process.stdout is not None
        summary = process.stdout.read()
    print(summary)
    assert process.returncode == 0
    steps = re.search(r"(\d+) steps in ", summary)
    assert steps is not None
    if int(steps[1]) < MIN_STEPS:  # on a machine that is this busy
        return straggler(llm)
    (line,) = (line for line in summary.splitlines() if line.startswith("straggler: "))
    return line


def sleep_in_each_step(worker: Any, rank: int, seconds: float) -> None:
    """From now on the forward pass of this rank takes so much longer."""
    import time

    if worker.ctx.rank != rank:
        return
    model = worker.worker.model_runner.model
    forward = model.forward

    def slower(*args: Any, **kwargs: Any) -> Any:
        time.sleep(seconds)
        return forward(*args, **kwargs)

    model.forward = slower


def test_the_timeline_of_a_real_run_has_every_step_and_no_overlap(llm: Any) -> None:
    generate(llm, STEPS)
    timeline = json.loads(subprocess.check_output(trace(llm)))
    check(timeline)
    steps = [event for event in timeline["traceEvents"] if event.get("cat") == "step"]
    assert len([step for step in steps if step["name"] == "execute_model"]) >= STEPS


def test_equal_ranks_name_nobody_and_the_rank_that_sleeps_5_ms_more_is_named(llm: Any) -> None:
    # On a busy machine a rank that has to wait for a processor is late, too: then another run may show it.
    while straggler(llm) != "straggler: none":
        pass
    llm.collective_rpc(sleep_in_each_step, args=(1, 0.005))
    for _ in range(20):
        if (line := straggler(llm)).startswith("straggler: rank 1, ready "):
            break
    assert line.startswith("straggler: rank 1, ready ")
