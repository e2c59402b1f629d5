"""Serve a model with vLLM over the mp-spmd executor, ask it a question, and clean up.

Starts `vllm serve` with `--distributed-executor-backend mp-spmd` and two ranks, streams the answer
to a question, shows the processes, measures tokens/s, stops the server and checks that neither a
process nor shared memory is left. Exit code 0 means that all of this went well.
"""

import argparse
import contextlib
import http.client
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import psutil
from _progress import Progress
from _server import Server, ServerError, runs_on_cpu, serve_command, title
from make_model import ModelError, make_model

QUESTION = "What is the capital of France?"
ANSWER = "Paris"
CONCURRENT_REQUESTS = 8
TOKENS_A_REQUEST = 64
EXACT_LENGTH = {"max_tokens": TOKENS_A_REQUEST, "ignore_eos": True}
REQUEST_SECONDS = 300.0


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model",
        default=os.environ.get("MODEL", ""),
        metavar="NAME_OR_DIR",
        help="default: $MODEL, or SmolLM2-135M-Instruct, made on the spot",
    )
    parser.add_argument("--backend", default="mp-spmd", help="default: %(default)s")
    parser.add_argument("--tensor-parallel-size", type=int, default=2, metavar="N")
    parser.add_argument("--question", default=QUESTION, help="default: %(default)s")
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    return parser.parse_args()


def run(args: argparse.Namespace) -> bool:
    """Run the demo; return whether all of it went well."""
    on_cpu = runs_on_cpu()
    model = args.model or str(make_model())
    port = free_port(args.port)
    command = serve_command(model)
    command += ["--tensor-parallel-size", str(args.tensor_parallel_size)]
    command += ["--distributed-executor-backend", args.backend]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    if not args.model:
        command += default_model_settings(on_cpu)
    say(f"$ vllm serve {' '.join(command[command.index(model) :])}")

    server = Server(command, server_environment(model), port)
    try:
        with server:
            say(f"server's log: {server.log}")
            answer = use(server, model, args.question)
    finally:
        for problem in server.problems:
            complain(problem)
    if not server.problems:
        say("stopped; no process, no shared memory and no temporary file left behind")
    if not args.model and args.question == QUESTION and ANSWER not in answer:
        complain(f"expected {ANSWER!r} in the answer")
        return False
    return not server.problems


def use(server: Server, model: str, question: str) -> str:
    """Wait for the server, use it, and return its answer to the question."""
    try:
        server.wait_ready()
        warm_up(server.port, model, question)
        answer = ask(server.port, model, question)
        show_processes(server.processes())
        measure(server.port, model)
    except (OSError, http.client.HTTPException) as error:
        raise ServerError(server.diagnosis(f"no answer, {error}")) from error
    return answer


def default_model_settings(on_cpu: bool) -> list[str]:
    """Return the options that make a demo of the small model quick."""
    settings = ["--max-model-len", "2048"]
    if on_cpu:
        # Compiling takes minutes, and most CPUs have to emulate bfloat16.
        settings += ["--enforce-eager", "--dtype", "float32"]
    return settings


def server_environment(model: str) -> dict[str, str]:
    """Return the environment the server runs in."""
    environment = dict(os.environ)
    # GiB for each rank. Only CPU builds read it; without it they take most of the memory.
    environment.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    if Path(model).is_dir():
        environment["HF_HUB_OFFLINE"] = "1"
    return environment


def free_port(wanted: int) -> int:
    """Return the TCP port `wanted`, or any for 0; raise `ServerError` if it is taken.

    Another server on the port would answer our requests in the place of the one we start.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError as error:
            raise ServerError(f"port {wanted}: {error.strerror}") from error
        port: int = probe.getsockname()[1]
        return port


def warm_up(port: int, model: str, question: str) -> None:
    """Let the server answer one token: on a new machine it compiles some of its code then."""
    with (
        Progress("first request (on a new machine vLLM compiles now, for half a minute)"),
        chat(port, model, question, max_tokens=1) as connection,
    ):
        answered(connection).read()


def ask(port: int, model: str, question: str) -> str:
    """Print the question and the answer as it comes; return the answer."""
    say(f"\nQ: {question}\nA: ", end="")
    answer = ""
    with chat(port, model, question, stream=True, max_tokens=256) as connection:
        for line in answered(connection):
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line.removeprefix(b"data: "))
            if "error" in event:
                raise http.client.HTTPException(event["error"])
            for choice in event["choices"]:
                piece = choice["delta"].get("content") or ""
                say(piece, end="")
                answer += piece
    say("\n")
    return answer


def measure(port: int, model: str) -> None:
    """Send a few requests at once and print the tokens generated a second."""
    requests = f"{CONCURRENT_REQUESTS} requests at once, {TOKENS_A_REQUEST} tokens each"
    with contextlib.ExitStack() as stack, Progress(f"measuring: {requests}"):
        start = time.monotonic()
        connections = [
            stack.enter_context(
                chat(port, model, f"Tell me a story about the number {number}.", **EXACT_LENGTH)
            )
            for number in range(CONCURRENT_REQUESTS)
        ]
        replies = [json.load(answered(connection)) for connection in connections]
        seconds = time.monotonic() - start
    total = sum(reply["usage"]["completion_tokens"] for reply in replies)
    say(f"{requests}: {total} tokens in {seconds:.1f} s, {total / seconds:.0f} tokens/s\n")


@contextlib.contextmanager
def chat(port: int, model: str, text: str, **options: Any) -> Iterator[http.client.HTTPConnection]:
    """Send a chat request and give the connection that its answer will come over."""
    messages = [{"role": "user", "content": text}]
    body = {"model": model, "messages": messages, "temperature": 0, **options}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=REQUEST_SECONDS)
    # Closed in any case: the server doesn't stop while a client waits for an answer.
    with contextlib.closing(connection):
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        yield connection


def answered(connection: http.client.HTTPConnection) -> http.client.HTTPResponse:
    """Wait for the answer to begin; raise `HTTPException` if it is a refusal."""
    response = connection.getresponse()
    if response.status != http.client.OK:
        reply = response.read().decode(errors="replace")
        raise http.client.HTTPException(f"status {response.status}: {reply}")
    return response


def show_processes(processes: list[psutil.Process]) -> None:
    """Print a table of the server's processes, children indented below their parents."""
    say(f"{'pid':>8} {'RSS MiB':>8} {'threads':>8}  process")
    depth: dict[int, int] = {}
    for process in processes:
        try:
            depth[process.pid] = depth.get(process.ppid(), -1) + 1
            rss, threads = process.memory_info().rss / 2**20, process.num_threads()
        except psutil.NoSuchProcess:
            continue
        indent = "  " * depth[process.pid]
        say(f"{process.pid:>8} {rss:>8.0f} {threads:>8}  {indent}{title(process)}")
    say("")


def say(text: str, end: str = "\n") -> None:
    """Print and flush, so that the order with stderr's progress is right in a pipe too."""
    print(text, end=end, flush=True)


def complain(text: str) -> None:
    """Print a problem on stderr."""
    print(f"serve_demo: error: {text}", file=sys.stderr, flush=True)


def terminate(_number: int, _frame: object) -> NoReturn:
    """End on SIGTERM as on Ctrl-C: with the server stopped."""
    sys.exit(128 + signal.SIGTERM)


def main() -> int:
    """Run the command line; return the exit code."""
    args = parse_arguments()
    signal.signal(signal.SIGTERM, terminate)
    # A shell's background jobs ignore SIGINT, and the server would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return 0 if run(args) else 1
    except KeyboardInterrupt:
        complain("interrupted")
        return 128 + signal.SIGINT
    except (ServerError, ModelError, OSError) as error:
        complain(str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main())
