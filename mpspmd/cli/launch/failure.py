"""What to say when a launched run has failed: who was first, why, and where."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpspmd.processes.exit_status import PENDING, describe_exit

_ENDED = (-signal.SIGTERM, 128 + signal.SIGTERM, -signal.SIGKILL)
"""How a process ends that had said what was wrong, and hadn't left by itself in time."""

ENGINE = -1
"""The engine, where others have a rank."""


@dataclass(frozen=True)
class Failure:
    """One process's end."""

    rank: int
    pid: int
    exit_code: int
    """Minus the signal's number for a signal."""
    error: dict[str, Any]
    """Its error file, as torch.distributed.elastic and mpspmd write it; empty if there is none."""
    stderr: Sequence[bytes] = ()
    """The last lines."""
    memory_killer: str = ""
    """What is to be said of the out-of-memory killer, if that may have killed it."""

    @property
    def name(self) -> str:
        return "the engine" if self.rank == ENGINE else f"rank {self.rank}"

    @property
    def was_stopped(self) -> bool:
        """By the launcher or the engine, because another one had failed, or it had itself."""
        return self.exit_code in (-signal.SIGTERM, 128 + signal.SIGTERM)

    @property
    def reason(self) -> str:
        if self.error and self.exit_code in _ENDED:
            return "raised, and was stopped"
        note = self.memory_killer if self.exit_code == -signal.SIGKILL else ""
        return describe_exit(self.exit_code) + note

    @property
    def status(self) -> int:
        """As a shell has it."""
        if self.error and self.exit_code in _ENDED:
            return 1
        return self.exit_code if self.exit_code >= 0 else 128 - self.exit_code

    @property
    def message(self) -> str:
        """What its error file says, in a line or more."""
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
    """Who is to blame, as far as processes that ended within a tenth of a second can tell."""
    engine = failures.get(ENGINE)
    if engine is not None and engine.error.get("died") and engine.error.get("rank") in failures:
        return failures[int(engine.error["rank"])]
    # Who could say what went wrong was first; a rank can only while it starts.
    if told := [each for each in failures.values() if each.error and each.rank != ENGINE]:
        return min(told, key=lambda failure: failure.rank)
    own = [each for each in failures.values() if each.error or not each.was_stopped]
    # An engine that ends takes its ranks with it; a rank's own failure reaches the engine as RankDied.
    if engine is not None and engine in own:
        return engine
    return min(own or failures.values(), key=lambda failure: failure.rank)


def summary(program: str, failures: Mapping[int, Failure]) -> str:
    """For people."""
    first = first_failure(failures)
    engine = failures.get(ENGINE)
    cause = f"{first.name} (pid {first.pid}): {first.reason}"
    if first is engine and (rank := engine.error.get("rank")) is not None:
        cause = f"rank {rank} raised, and {cause}"
    lines = [f"mpspmd-launch: {program} failed: {cause}"]
    # Where a rank was when it died is what the engine knows of it; how it ended, its parent.
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
    return "\n".join(lines)
