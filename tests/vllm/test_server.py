"""`vllm serve` on mp-spmd: one server, from its first tokens to Ctrl-C."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path
from typing import Any

import workload
from leftovers import Leftovers, complaints
from vllm_server import Server

CLASS_PATH = "mpspmd.vllm.executor.MpSpmdExecutor"


def test_http_streams_what_mp_generates_and_ctrl_c_while_generating_leaves_nothing(
    model: Path, tmp_path: Path, reference: list[dict[str, Any]]
) -> None:
    before = Leftovers()
    # By the class path: the last option holds.
    options = ("--distributed-executor-backend", CLASS_PATH)
    server = Server(model, tmp_path / "log.txt", *options, env=before.environment)
    try:
        server.wait_until_healthy()
        streamed = server.stream_all(workload.prompts(), workload.sampling)
        assert streamed == [output["tokens"] for output in reference]
        for _ in range(4):
            threading.Thread(target=_generate_on, args=(server,), daemon=True).start()
        time.sleep(1.5)
        assert server.stop() == []
        assert before.new_files(within_s=20) == set()
        assert complaints(server.log.read_text()) == []
    finally:
        server.kill()


def _generate_on(server: Server) -> None:
    with contextlib.suppress(OSError):
        server.stream([5, 6, 7], {"max_tokens": 400, "ignore_eos": True}, timeout_s=4)
