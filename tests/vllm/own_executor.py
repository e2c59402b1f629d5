"""`own_executor.py MODEL OUT`: an executor of a user's own, defined in the main program, as frameworks for
reinforcement learning have it. It adds a method to the workers; then a rank dies.

Writes down, as JSON, what its user sees.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import workload

workload.set_environment()
# The class needs no entry point.
os.environ["VLLM_PLUGINS"] = "another"

from fail import describe  # noqa: E402

from mpspmd.vllm.executor import MpSpmdExecutor  # noqa: E402


class Extension:
    """What vLLM mixes into each worker."""

    rank: int

    def weights_version(self, base: int) -> int:
        return base + self.rank


class OwnExecutor(MpSpmdExecutor):
    def _init_executor(self) -> None:
        self.parallel_config.worker_extension_cls = "own_executor.Extension"
        super()._init_executor()
        self.versions = self.collective_rpc("weights_version", args=(10,))


def main(model: str, out: str) -> None:
    from vllm import LLM, SamplingParams

    seen: dict[str, Any] = {}
    llm = LLM(
        model,
        tensor_parallel_size=2,
        distributed_executor_backend=OwnExecutor,
        enforce_eager=True,
        **workload.ENGINE_ARGS,
    )
    seen["versions"] = llm.collective_rpc("weights_version", args=(20,))
    pids = llm.collective_rpc(lambda worker: os.getpid())
    os.kill(pids[1], signal.SIGKILL)
    try:
        sampling = SamplingParams(max_tokens=400, ignore_eos=True)
        llm.generate({"prompt_token_ids": [5, 6, 7]}, sampling, use_tqdm=False)
    except Exception as error:
        seen["error"] = describe(error)
    Path(out).write_text(json.dumps(seen))


if __name__ == "__main__":
    main(*sys.argv[1:])
