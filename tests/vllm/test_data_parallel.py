"""A server of two engines: where their ranks compute, and how it ends when its whole group has to."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from leftovers import Leftovers, complaints, session_processes, wait_until_gone
from vllm_server import Server

STREAMS, TOKENS = 6, 450


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_engines_share_the_cores_out_and_answers_under_way_survive_sigterm_to_the_group(
    model: Path, tmp_path: Path
) -> None:
    before = Leftovers()
    # Without the cores that these tests choose otherwise.
    environment = before.environment
    environment.pop("VLLM_CPU_OMP_THREADS_BIND")
    options = [
        *("--tensor-parallel-size", "1", "--data-parallel-size", "2", "--api-server-count", "1"),
        *("--shutdown-timeout", "200"),
    ]
    server = Server(model, tmp_path / "log.txt", *options, env=environment)
    try:
        server.wait_until_healthy(900)
        _assert_ranks_have_cores_of_their_own(server)
        began = [threading.Event() for _ in range(STREAMS)]
        sampling = {"max_tokens": TOKENS, "ignore_eos": True}
        with ThreadPoolExecutor(STREAMS) as pool:
            answers = [pool.submit(server.stream, [5, 6, 7], sampling, 300, each) for each in began]
            assert all(each.wait(300) for each in began)
            assert not any(answer.done() for answer in answers), "too fast to be interrupted"
            # As systemd, tini -g and Slurm do.
            os.killpg(server.process.pid, signal.SIGTERM)
            assert [len(answer.result()) for answer in answers] == [TOKENS] * STREAMS
        assert server.process.wait(200) == 0
        assert wait_until_gone(server.process.pid, 20) == []
        assert before.new_files(within_s=20) == set()
        assert complaints(server.log.read_text()) == []
    finally:
        server.kill()


def _assert_ranks_have_cores_of_their_own(server: Server) -> None:
    pids = [
        int(line.split()[0])
        for line in session_processes(server.process.pid)
        if "VLLM::Worker" in line
    ]
    cores = [set(psutil.Process(pid).cpu_affinity()) for pid in pids]
    assert len(cores) == 2, session_processes(server.process.pid)
    if len(os.sched_getaffinity(0)) >= 2:
        assert not cores[0] & cores[1], cores
