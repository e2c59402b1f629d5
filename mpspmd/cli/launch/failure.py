"""Failure: how a launched process ended; and the summary of a failed run: who was first, why and where."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpspmd.processes.exit_status import PENDING, describe_exit

_STOPPED = (-signal.SIGTERM, 128 + signal.SIGTERM)
_ENDED = (*_STOPPED, -signal.SIGKILL)
"""Exit codes of a process that the agent ended. If it has an error file, it had failed before that."""

ENGINE = -1
"""Stands for the engine where a rank's number is expected."""


@dataclass(frozen=True)
class Failure:
    """How one process ended."""

    rank: int
    pid: int
    exit_code: int
    """Minus the signal's number for a signal."""
    error: dict[str, Any]
    """The content of its error file, which torch.distributed.elastic or mpspmd wrote; empty without one."""
    stderr: Sequence[bytes] = ()
    """The last lines."""
    memory_killer: str = ""
    """A note about the kernel's out-of-memory killer, if that may have killed the process."""
    called_run: bool = True
    """Of the engine: whether its script had called mpspmd.run()."""

    @property
    def name(self) -> str:
        return "the engine" if self.rank == ENGINE else f"rank {self.rank}"

    @property
    def was_stopped(self) -> bool:
        """Whether the launcher or the engine ended it, because a process had failed."""
        return self.exit_code in _STOPPED

    @property
    def reason(self) -> str:
        if self.error and self.exit_code in _ENDED:
            return "raised, and was stopped"
        note = self.memory_killer if self.exit_code == -signal.SIGKILL else ""
        return describe_exit(self.exit_code) + note

    @property
    def status(self) -> int:
        """The exit status, in a shell's convention: 128 + N for signal N."""
        if self.error and self.exit_code in _ENDED:
            return 1
        return self.exit_code if self.exit_code >= 0 else 128 - self.exit_code

    @property
    def message(self) -> str:
        """The error file's message."""
        message = self.error.get("message", "")
        return str(message.get("message", "")) if isinstance(message, dict) else str(message)

    @property
    def traceback(self) -> str:
        message = self.error.get("message")
        if isinstance(message, dict) and (
            stack := message.get("extraInfo", {}).get("py_callstack")
        ):
            return str(stack).rstrip()
        text = b"".join(self.stderr).decode(errors="replace")
        _, begin, rest = text.rpartition("Traceback (most recent call last):")
        return (begin + rest).rstrip()


def read_error_file(path: str) -> dict[str, Any]:
    try:
        data = json.loads(Path(path).read_text())
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def first_failure(failures: Mapping[int, Failure]) -> Failure:
    """The process to blame. The agent reports all that ended within a tenth of a second, in no order."""
    engine = failures.get(ENGINE)
    if engine is not None and engine.error.get("died") and engine.error.get("rank") in failures:
        return failures[int(engine.error["rank"])]
    # A rank writes an error file only while it starts; then it failed before the engine could.
    if told := [each for each in failures.values() if each.error and each.rank != ENGINE]:
        return min(told, key=lambda failure: failure.rank)
    own = [each for each in failures.values() if each.error or not each.was_stopped]
    # The end of an engine ends its ranks. If a rank had failed first, the engine would have reported it.
    if engine is not None and engine in own:
        return engine
    return min(own or failures.values(), key=lambda failure: failure.rank)


def summary(program: str, failures: Mapping[int, Failure]) -> str:
    """What to print about a failed run, without a newline at the end."""
    first = first_failure(failures)
    engine = failures.get(ENGINE)
    cause = f"{first.name} (pid {first.pid}): {first.reason}"
    if first is engine and (rank := engine.error.get("rank")) is not None:
        cause = f"rank {rank} raised, and {cause}"
    lines = [f"mpspmd-launch: {program} failed: {cause}"]
    # Only the engine knows what a dead rank was doing; only the launcher, its parent, knows how it ended.
    source = first if first.error or engine is None else engine
    text = source.traceback or source.message.replace(PENDING, first.reason) or first.traceback
    lines += [text] if text else []
    others = [
        f"{failure.name}: {failure.reason}"
        for failure in failures.values()
        if failure is not first and not failure.was_stopped
    ]
    if others:
        lines.append(f"then {'; '.join(others)}")
    if not first.called_run and first.exit_code >= 0:  # no signal ended it
        lines.append(
            f"mpspmd-launch: {program} has not called mpspmd.run(); for a program without an engine give "
            "--ranks-only"
        )
    return "\n".join(lines)
