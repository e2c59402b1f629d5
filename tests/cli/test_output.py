"""What the commands do where their output can't go."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from told_program import ToldProgram


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


@pytest.fixture(scope="module")
def engine_pid() -> Iterator[int]:
    """A process with one engine: that of the tests may have engines of other tests."""
    with ToldProgram(Path(__file__).parent) as program:
        program.do("engine = mpspmd.Engine(mpspmd.Worker, world_size=1)")
        program.do("engine.collective_rpc('__repr__')")
        yield program.pid


@pytest.mark.parametrize(
    "command", ["top --json", "top --once", "trace {pid}", "trace {pid} --summary"]
)
def test_a_full_disk_is_one_line(engine_pid: int, command: str) -> None:
    done = run(*command.format(pid=engine_pid).split())
    name = f"mpspmd-{command.split()[0]}"
    assert (done.returncode, done.stderr) == (
        1,
        f"{name}: [Errno 28] No space left on device\n".encode(),
    )


def test_the_exit_code_says_whether_an_engine_is_alive_if_the_line_can_not_be_written(
    engine_pid: int,
) -> None:
    done = run("alive", str(engine_pid))
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_terminal_that_knows_ascii_only_gets_the_figures(engine_pid: int) -> None:
    done = run("trace", str(engine_pid), "--summary", to=os.devnull, PYTHONIOENCODING="ascii")
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
