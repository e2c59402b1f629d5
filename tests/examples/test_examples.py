"""Each example does what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_model import make_tiny_llama

pytestmark = pytest.mark.timeout(240)

_EXAMPLES = Path(__file__).parents[2] / "examples"


def _run(name: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(_EXAMPLES / name), *arguments],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _tokens(output: str) -> list[int]:
    found = re.search(r"^tokens: (.*)$", output, re.MULTILINE)
    assert found is not None, output
    return [int(token) for token in found[1].split()]


def _weights(output: str) -> list[int]:
    found = re.search(r"^weights of each rank: (.*)$", output, re.MULTILINE)
    assert found is not None, output
    return [int(count) for count in found[1].split()]


def test_hello_adds_up_what_the_ranks_have() -> None:
    assert _run("hello.py").splitlines()[-1] == f"together: {sum(range(100))}"


def test_the_sharded_mlp_agrees_with_the_unsharded_one() -> None:
    output = _run("tensor_parallel_mlp.py", "--ranks", "2")
    assert "weights of each rank: [262144, 262144]" in output
    assert output.count("all 2 ranks agree") == 3


def test_the_sharded_model_generates_the_unsharded_models_tokens(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = make_tiny_llama(tmp_path / "model")
    prompt = "Some text"
    output = _run(
        "generate.py", "--model", str(folder), "--ranks", "2", "--max-tokens", "20", "--details", prompt
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    expected = model.generate(ids, do_sample=False, max_new_tokens=20)[0, ids.shape[1] :].tolist()
    assert _tokens(output) == expected
    assert tokenizer.decode(expected) in output
    whole = sum(parameter.numel() for parameter in model.parameters())
    assert all(whole / 2 <= count < 0.75 * whole for count in _weights(output))


@pytest.mark.slow
def test_smollm2_answers_the_same_on_two_ranks_as_on_one() -> None:
    outputs = [_run("generate.py", "--ranks", ranks, "--details") for ranks in ("1", "2")]
    assert _tokens(outputs[0]) == _tokens(outputs[1])
    assert all("Paris" in output for output in outputs)
