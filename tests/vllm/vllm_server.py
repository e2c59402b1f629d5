"""A `vllm serve` process, in a session of its own, as a user would start it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from free_ports import free_port
from leftovers import wait_until_gone


class Server:
    """Started by the constructor; `stop()` or `interrupt()` ends it."""

    def __init__(
        self, model: Path, log: Path, *options: str, env: dict[str, str] | None = None
    ) -> None:
        with self._network():
            self.port = free_port()
        self.model = str(model)
        self.log = log
        vllm = Path(sys.executable).with_name("vllm")
        command = [
            str(vllm), "serve", self.model, "--host", "127.0.0.1", "--port", str(self.port),
            "--tensor-parallel-size", "2", "--distributed-executor-backend", "mp-spmd",
            "--max-model-len", "512", "--max-num-batched-tokens", "8192", "--enforce-eager", *options,
        ]  # fmt: skip
        with log.open("w") as file:
            self.process = self._popen(command, stdout=file, stderr=subprocess.STDOUT, env=env)

    def _popen(self, command: list[str], **options: Any) -> subprocess.Popen[Any]:
        return subprocess.Popen(command, start_new_session=True, **options)

    def _network(self) -> contextlib.AbstractContextManager[None]:
        """Within, this thread can connect to the server."""
        return contextlib.nullcontext()

    def wait_until_healthy(self, timeout_s: float = 1200) -> None:
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            assert self.process.poll() is None, self._end_of_log()
            try:
                with self._network():
                    urllib.request.urlopen(
                        f"http://127.0.0.1:{self.port}/health", timeout=5
                    ).close()
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.3)
        raise AssertionError(f"not healthy after {timeout_s} s\n{self._end_of_log()}")

    def _end_of_log(self) -> str:
        """After the first error that it names."""
        text = self.log.read_text()
        error = re.search(r"\w+(Error|Exception): .+", text)
        return f"{error[0] if error else 'no error'}\n\n{text[-5000:]}"

    def wait_for_log(self, text: str, timeout_s: float = 600) -> None:
        """Until the log has `text` in it."""
        end = time.monotonic() + timeout_s
        while text not in self.log.read_text():
            assert self.process.poll() is None, self._end_of_log()
            assert time.monotonic() < end, f"no {text!r} in\n{self._end_of_log()}"
            time.sleep(0.05)

    def stream(
        self,
        prompt: list[int],
        sampling: dict[str, Any],
        timeout_s: float = 300,
        began: threading.Event | None = None,
    ) -> list[int]:
        """The token ids of one streamed completion; `timeout_s` for each piece of it.

        Sets `began` when the first piece has come.

        OSError when the server says within the stream that it can't go on.
        """
        body = {
            "model": self.model, "prompt": prompt, "stream": True, "return_token_ids": True, **sampling
        }  # fmt: skip
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v1/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        tokens: list[int] = []
        with self._network(), urllib.request.urlopen(request, timeout=timeout_s) as response:
            for line in response:
                if line.startswith(b"data: {"):
                    piece = json.loads(line[6:])
                    if "error" in piece:
                        raise OSError(f"the stream ended with {piece['error']}")
                    tokens += piece["choices"][0].get("token_ids") or []
                    if began is not None:
                        began.set()
        return tokens

    def stream_all(
        self, prompts: list[list[int]], sampling: Callable[[int], dict[str, Any]]
    ) -> list[list[int]]:
        with ThreadPoolExecutor(len(prompts)) as pool:
            jobs = [pool.submit(self.stream, p, sampling(i)) for i, p in enumerate(prompts)]
            return [job.result() for job in jobs]

    def interrupt(self) -> None:
        """Ctrl-C: the whole process group gets SIGINT."""
        os.killpg(self.process.pid, signal.SIGINT)

    def stop(self, within_s: float = 60) -> list[str]:
        """Ctrl-C, and the processes that are left after it."""
        if self.process.poll() is None:
            self.interrupt()
            self.process.wait(within_s)
        return wait_until_gone(self.process.pid, 20)

    def kill(self) -> None:
        """Whatever is left of it, after a failed test."""
        for line in wait_until_gone(self.process.pid, 0):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(line.split()[0]), signal.SIGKILL)
        self.process.wait()
