"""What the commands do where their output can't go."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import watched_workers

import mpspmd


def run(
    *arguments: str, to: str = "/dev/full", **variables: str
) -> subprocess.CompletedProcess[bytes]:
    with open(to, "wb") as file:
        return subprocess.run(
            [sys.executable, "-m", "mpspmd", *arguments],
            stdout=file,
            stderr=subprocess.PIPE,
            env=os.environ | variables,
            timeout=60,
        )


@pytest.mark.parametrize(
    "command", ["top --json", "top --once", "trace {pid}", "trace {pid} --summary"]
)
def test_a_full_disk_is_one_line(command: str) -> None:
    with mpspmd.Engine(watched_workers.Stepper, world_size=1, args=(False,)):
        done = run(*command.format(pid=os.getpid()).split())
    name = f"mpspmd-{command.split()[0]}"
    assert (done.returncode, done.stderr) == (
        1,
        f"{name}: [Errno 28] No space left on device\n".encode(),
    )


@pytest.fixture
def engine_pid() -> Iterator[str]:
    """A process with one engine: that of the tests may have engines of other tests."""
    program = (
        "import mpspmd, os; engine = mpspmd.Engine(mpspmd.Worker, world_size=1)\n"
        "engine.collective_rpc(lambda worker: None); print(os.getpid(), flush=True); input()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", program], text=True, **pipes) as process:  # type: ignore[call-overload]
        yield process.stdout.readline().strip()
        process.communicate("\n")


def test_the_exit_code_says_whether_an_engine_is_alive_if_the_line_can_not_be_written(
    engine_pid: str,
) -> None:
    done = run("alive", engine_pid)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_terminal_that_knows_ascii_only_gets_the_figures(engine_pid: str) -> None:
    done = run("trace", engine_pid, "--summary", to=os.devnull, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_path_that_is_no_utf8_can_be_shown(tmp_path: Path) -> None:
    script = os.path.join(os.fsencode(tmp_path), b"lat\xe9n.py")
    program = "import mpspmd\nengine = mpspmd.Engine(mpspmd.Worker, world_size=1)\n"
    program += "print(1, flush=True)\ninput()\n"
    with open(script, "w") as file:
        file.write("if __name__ == '__main__':\n" + textwrap.indent(program, "    "))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, script], **pipes) as engine:  # type: ignore[call-overload]
        engine.stdout.readline()
        for how in ("--json", "--once"):
            done = run("top", str(engine.pid), how, to=os.devnull)
            assert (done.returncode, done.stderr) == (0, b"")
