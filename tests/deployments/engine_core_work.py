"""As vLLM starts its EngineCore: a process of that name, which leaves work to a thread."""

from __future__ import annotations

import multiprocessing
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mpspmd.vllm.process_end import exit_quickly_when_done


def run(folder: Path) -> None:
    exit_quickly_when_done()
    ThreadPoolExecutor(1).submit(lambda: (time.sleep(0.5), (folder / "done").touch()))


if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(
        target=run, args=(Path.cwd(),), name="EngineCore"
    )
    process.start()
    process.join()
    print(process.exitcode)
