"""Engine: all of vLLM with a tiny model, on either backend."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")  # read when vLLM is imported
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")

import psutil
from vllm import LLM, SamplingParams

import mpspmd
from benchmarks.machine import installed_version
from benchmarks.nvidia import BusyShare, gpus

VERSIONS = {
    "mp": installed_version("vllm", "vllm-cpu") or "unknown",
    "mp-spmd": mpspmd.__version__,
}
_PROMPT_TOKENS = 16


class Generation(NamedTuple):
    """One batch of requests, from its submission until its last token."""

    tokens: list[list[int]]  # each request's
    seconds: float
    cpu_seconds: float  # of all processes: this one, EngineCore and the ranks
    gpu_busy: float | None  # percent of the time; None without a GPU


class Engine:
    """`LLM` on one backend, with its processes. Main thread."""

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self._llm: Any = None
        self._processes: list[psutil.Process] = []
        self._busy = BusyShare() if gpus() else None

    def start(self, model: Path, tp: int, batch: int) -> None:
        """Starts it for up to `batch` requests at once."""
        cores = sorted(os.sched_getaffinity(0))
        # `mp` refuses more ranks than NUMA nodes unless it is told their cores. Both get the same.
        shares = [cores[rank * len(cores) // tp :] for rank in range(tp)]
        os.environ["VLLM_CPU_OMP_THREADS_BIND"] = "|".join(str(share[0]) for share in shares)
        # The engines of both backends share the GPUs.
        memory = {"gpu_memory_utilization": 0.3} if self._busy else {}
        before = set(psutil.Process().children(recursive=True))
        self._llm = LLM(
            str(model),
            tensor_parallel_size=tp,
            distributed_executor_backend=self.backend,
            enforce_eager=True,
            max_model_len=512,
            max_num_seqs=batch,
            max_num_batched_tokens=8192,
            enable_prefix_caching=False,
            disable_log_stats=True,
            **memory,
        )
        after = psutil.Process().children(recursive=True)
        self._processes = [process for process in after if process not in before]

    @property
    def pids(self) -> Sequence[int]:
        return [process.pid for process in self._processes]

    def generate(self, requests: int, tokens: int) -> Generation:
        """Generates `tokens` tokens, greedily, for each of so many requests at once."""
        prompts = [
            {
                "prompt_token_ids": [
                    (7 * number + 3 * at) % 4000 + 10 for at in range(_PROMPT_TOKENS)
                ]
            }
            for number in range(requests)
        ]
        sampling = SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True)
        cpu = self.cpu_seconds()
        began = time.perf_counter()
        outputs = self._llm.generate(prompts, sampling, use_tqdm=False)
        ended = time.perf_counter()
        return Generation(
            [list(output.outputs[0].token_ids) for output in outputs],
            ended - began,
            self.cpu_seconds() - cpu,
            self._busy.between(began, ended) if self._busy else None,
        )

    def cpu_seconds(self) -> float:
        """Of all its processes so far, and of this one."""
        times = [process.cpu_times() for process in [psutil.Process(), *self._processes]]
        return float(sum(each.user + each.system for each in times))

    def close(self) -> None:
        if self._busy is not None:
            self._busy.close()
        if self._llm is not None:
            self._llm.llm_engine.engine_core.shutdown()
