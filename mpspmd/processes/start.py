"""RankStart: all that the engine sends to a rank's process when it starts."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, cast

from mpspmd.codec.steps import PickledStepCodec, StepCodec
from mpspmd.errors import DecodeError, WorkerNotPicklable, text_of
from mpspmd.processes.death_pipe import DeathPipe
from mpspmd.processes.janitor import Janitor
from mpspmd.processes.main_module import Main, dumps_with_main
from mpspmd.processes.stacks import StackFile
from mpspmd.transport.channel import ChannelSegments
from mpspmd.transport.descriptor import Descriptor
from mpspmd.transport.segment import open_memory

_PIPE_BYTES = 32 * 1024
"""More than this goes through a file in memory. The engine sends a RankStart through a pipe, which holds
64 KiB. If it were larger, the engine would have to wait for this rank's interpreter to read it, before it
could start the next rank."""


@dataclass
class RankStart:
    """The rank's process unpickles it, and calls it. The call doesn't return.

    The worker and its arguments travel as bytes. `unpack` rebuilds them when the rank's control thread runs
    already, because this may import for many seconds, and may fail.
    """

    serve: Callable[[RankStart], None]
    """The rank's main function; see rank/process.py."""
    rank: int
    local_rank: int
    """Its place among the ranks on this node, which are the ones that share the channels."""
    world_size: int
    worker: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    segments: ChannelSegments
    run_dir: Path
    digest_requests: bool
    janitor: Janitor
    death_pipe: DeathPipe
    stack_file: StackFile
    signals_of_engine: frozenset[int]
    """The signals that the rank leaves to its engine."""
    step_codec: StepCodec | PickledStepCodec | None
    pickled: bytes | None
    """The worker and its arguments, if another node's engine has pickled them."""
    hash_seed: str
    """The value that we have set PYTHONHASHSEED to for this process, or ""."""
    main: Main | None = None
    """How to import the engine's main module; None if this process has it already."""
    memory: Descriptor | None = None
    """The file in memory with the worker and its arguments, if they are large."""
    report_start_failure: Callable[[BaseException], None] | None = None
    """The rank calls this if it can't make the worker. The engine gets a Fault in any case."""
    node_rank: int = 0
    num_nodes: int = 1
    meeting_place: str = ""
    """Where the ranks of several nodes meet for a process group, as torch's init_method."""
    begins_lines: bool = True
    """Whether the rank puts its number before its lines of the log. Else mpspmd-launch does it."""

    def __call__(self) -> None:
        self.serve(self)

    def __getstate__(self) -> dict[str, Any]:
        # Only multiprocessing's pickler can pickle locks, and only while a process is being spawned.
        dumps = dumps_with_main if self.main == {} else ForkingPickler.dumps
        pickled = self.pickled or bytes(dumps((self.worker, self.args, self.kwargs)))
        if len(pickled) > _PIPE_BYTES:
            # If there is no such file, the pipe does it more slowly.
            with contextlib.suppress(OSError):
                self.memory = _in_memory(pickled)
                pickled = b""
        return self.__dict__ | {"worker": pickled, "args": (), "kwargs": {}, "pickled": None}

    def sent(self) -> None:
        """In the engine: the rank's process has all that it needs, or can't be started."""
        if self.memory is not None:
            self.memory.close()

    def unpack(self) -> None:
        """Rebuilds the worker's class and its arguments. Raises DecodeError if that fails."""
        try:
            pickled = cast(bytes, self.worker)
            if self.memory is not None:
                with open(self.memory.fd, "rb") as file:
                    file.seek(0)
                    pickled = file.read()
            self.worker, self.args, self.kwargs = pickle.loads(pickled)
        except Exception as error:
            raise DecodeError(
                "the worker or its arguments can't be rebuilt here: "
                f"{type(error).__name__}: {text_of(error)}; define classes and functions at the top level "
                'of a module or of the script, and not under `if __name__ == "__main__":`'
            ) from error


def not_picklable(worker: object, error: Exception) -> WorkerNotPicklable:
    """The exception for the engine's caller if the worker or its arguments can't be pickled."""
    name = getattr(worker, "__qualname__", repr(worker))
    return WorkerNotPicklable(
        f"the worker {name} or its arguments can't be sent to a new process: {text_of(error)}; "
        "define the class at the top level of a module, and pass data as arguments"
    )


def _in_memory(data: bytes) -> Descriptor:
    """A file in memory with this content. OSError."""
    memory = Descriptor(open_memory("mpspmd-start"))
    try:
        with open(memory.fd, "wb", closefd=False) as file:
            file.write(data)
    except BaseException:
        memory.close()
        raise
    return memory
