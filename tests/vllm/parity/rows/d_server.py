"""Rows: the HTTP server, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
from vllm_server import Server

from parity.feature import Place, row

DEVELOPER = {"VLLM_SERVER_DEV_MODE": "1"}


@contextmanager
def serving(
    place: Place,
    name: str,
    *options: str,
    model: str = "llama",
    env: dict[str, str] | None = None,
) -> Iterator[Server]:
    backend = ("--distributed-executor-backend", place.backend)
    log = place.folder / f"{name}-server.log"
    environment = os.environ | DEVELOPER | (env or {})
    server = Server(place.models / model, log, *backend, *options, env=environment)
    try:
        server.wait_until_healthy()
        yield server
        server.stop(within_s=90)
    finally:
        server.kill()


def ask(server: Server, path: str, body: Any = None, timeout_s: float = 300) -> tuple[int, Any]:
    """Status and body of an answer; status 0 if the connection fails."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}{path}", data, {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as response:
            status, text = response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        status, text = error.code, error.read().decode()
    except OSError:
        return 0, None
    try:
        return status, json.loads(text)
    except ValueError:
        return status, text


def stream_in_background(server: Server) -> None:
    def stream() -> None:
        try:
            server.stream([5, 6, 7], {"max_tokens": 400, "ignore_eos": True}, timeout_s=20)
        except Exception:
            return

    for _ in range(4):
        threading.Thread(target=stream, daemon=True).start()
    time.sleep(1.0)


def rank_below(process: int) -> psutil.Process:
    """TP rank 1 of an engine that this process or one of its children has."""
    for child in psutil.Process(process).children(recursive=True):
        if child.status() != psutil.STATUS_ZOMBIE and "Worker_TP1" in " ".join(child.cmdline()):
            return child
    raise AssertionError(f"process {process} has no rank")


@row("http", "HTTP: chat with tools, LoRA, `collective_rpc`, metrics, health", engine=None)
def http(place: Place) -> Any:
    tool = {
        "type": "function",
        "function": {
            "name": "add",
            "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
        },
    }
    chat = {
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 60,
        "temperature": 0,
        "tools": [tool],
        "tool_choice": {"type": "function", "function": {"name": "add"}},
    }
    tools = ("--enable-auto-tool-choice", "--tool-call-parser", "pythonic")
    # vLLM refuses it where there are several API servers.
    loading = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"}
    with serving(place, "http", "--enable-lora", *tools, env=loading) as server:

        def said_in_chat(body: dict[str, Any]) -> Any:
            status, answer = ask(server, "/v1/chat/completions", body)
            if status != 200:
                return [status, answer]
            message = answer["choices"][0]["message"]
            calls = [each["function"] for each in message.get("tool_calls") or []]
            return [status, message.get("content"), calls]

        plain = {key: value for key, value in chat.items() if not key.startswith("tool")}
        said: dict[str, Any] = {"chat": [said_in_chat(plain), said_in_chat(chat)]}
        adapter = {"lora_name": "adapter", "lora_path": str(place.models / "adapter")}
        prompt = {"prompt": [5, 6, 7], "max_tokens": 12, "temperature": 0, "return_token_ids": True}

        def tokens(model: str) -> Any:
            status, answer = ask(server, "/v1/completions", prompt | {"model": model})
            return [status, answer["choices"][0]["token_ids"] if status == 200 else None]

        said["lora"] = [
            ask(server, "/v1/load_lora_adapter", adapter)[0],
            [each["id"] for each in ask(server, "/v1/models")[1]["data"]][1:],
            tokens("adapter"),
            ask(server, "/v1/unload_lora_adapter", {"lora_name": "adapter"})[0],
            tokens("adapter")[0],
        ]
        said["rpc"] = [ask(server, "/collective_rpc", {"method": "check_health"})]
        names = [line.split("{")[0] for line in ask(server, "/metrics")[1].splitlines()]
        said["metrics"] = sorted({name for name in names if name.startswith("vllm:")})
        said["resets"] = [ask(server, f"/reset_{what}_cache", {})[0] for what in ("prefix", "mm")]
        said["sleeping"] = ask(server, "/is_sleeping")
        # Last: what `mp` answers after a call that has failed may be the failed call's.
        bad = adapter | {"lora_name": "x", "lora_path": "/nowhere/at/all"}
        said["bad"] = [
            ask(server, "/v1/load_lora_adapter", bad)[0],
            ask(server, "/collective_rpc", {"method": "no_such_method"})[0],
            ask(server, "/health")[0],
        ]
        return said


@row("http-sigterm", "SIGTERM with requests in flight: exit code", engine=None)
def terminated(place: Place) -> Any:
    with serving(place, "sigterm") as server:
        stream_in_background(server)
        server.process.send_signal(signal.SIGTERM)
        return server.process.wait(60)


@row("http-shutdown-timeout", "`--shutdown-timeout`: requests end before the server", engine=None)
def drained(place: Place) -> Any:
    tokens: list[int] = []
    with serving(place, "drain", "--shutdown-timeout", "60") as server:

        def stream() -> None:
            tokens.extend(server.stream([5, 6, 7], {"max_tokens": 300, "ignore_eos": True}))

        thread = threading.Thread(target=stream, daemon=True)
        thread.start()
        time.sleep(0.5)
        server.process.send_signal(signal.SIGTERM)
        thread.join(60)
        return [len(tokens), server.process.wait(60)]


@row("http-dead-rank", "a killed rank: requests, `/health`, exit code", engine=None)
def dead_rank(place: Place) -> Any:
    with serving(place, "dead") as server:
        stream_in_background(server)
        rank_below(server.process.pid).kill()
        try:
            code = server.process.wait(60)
        except Exception:
            code = None
        return {"health": ask(server, "/health")[0], "exit code": code}
