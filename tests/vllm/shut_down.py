"""python shut_down.py MODEL: starts an LLM with TP 2, generates, and shuts it down part by part.

Prints how long the executor's shutdown took beyond the workers' own, in seconds. The engine runs in
this process, so that the executor can be reached.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import workload


def main() -> None:
    workload.set_environment()
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    from vllm import LLM, SamplingParams

    llm = LLM(
        sys.argv[1],
        tensor_parallel_size=2,
        distributed_executor_backend="mp-spmd",
        enforce_eager=True,
        **workload.ENGINE_ARGS,
    )
    llm.generate("text", SamplingParams(max_tokens=8, ignore_eos=True), use_tqdm=False)
    executor = llm.llm_engine.engine_core.engine_core.model_executor
    pids = executor.collective_rpc(_time_shutdown)
    print("SHUTTING DOWN", flush=True)
    print("SHUTTING DOWN", file=sys.stderr, flush=True)
    began = time.monotonic()
    executor.shutdown()
    executor_s = time.monotonic() - began
    while any(os.path.exists(f"/proc/{pid}") for pid, _ in pids):
        time.sleep(0.01)
    gone_s = time.monotonic() - began
    workers_s = max(float(Path(path).read_text()) for _, path in pids)
    for _, path in pids:
        os.unlink(path)
    llm.llm_engine.engine_core.shutdown()
    llm_s = time.monotonic() - began
    print(
        f"executor {executor_s:.3f} workers {workers_s:.3f} ranks gone {gone_s:.3f} llm {llm_s:.3f}"
    )


def _time_shutdown(worker: object) -> tuple[int, str]:
    """On a rank: its worker's own shutdown writes down how long it took."""
    import os
    import tempfile
    import time

    original = worker.worker.shutdown  # type: ignore[attr-defined]
    handle, path = tempfile.mkstemp()
    os.close(handle)

    def timed() -> None:
        began = time.monotonic()
        original()
        with open(path, "w") as file:
            file.write(str(time.monotonic() - began))

    worker.worker.shutdown = timed  # type: ignore[attr-defined]
    return os.getpid(), path


if __name__ == "__main__":
    main()
