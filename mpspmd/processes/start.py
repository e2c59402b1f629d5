"""RankStart: all that a rank's process is given when it starts."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, cast

from mpspmd.codec.steps import StepCodec
from mpspmd.errors import DecodeError, text_of
from mpspmd.processes.death_pipe import DeathPipe
from mpspmd.processes.janitor import Janitor
from mpspmd.processes.main_module import Main, dumps_with_main, import_main
from mpspmd.processes.stacks import StackFile
from mpspmd.transport.channel import ChannelSegments


@dataclass
class RankStart:
    """An argument of a rank's process: the process calls it, and it doesn't return.

    The worker and its arguments travel as bytes, and `unpack` rebuilds them only when the rank's control
    thread runs: that may import for many seconds, and may fail.
    """

    serve: Callable[[RankStart], None]
    """What the process does; see rank/process.py."""
    rank: int
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
    signals_of_engine: frozenset[int] = frozenset()
    """The signals that the rank leaves to its engine."""
    step_codec: StepCodec | None = None
    main: Main | None = None
    """The engine's main module; None: this process runs the same one already."""
    hash_seed: str = ""
    """What PYTHONHASHSEED was set to for this process."""
    report_start_failure: Callable[[BaseException], None] | None = None
    """The rank calls this when it can't make the worker, beside telling the engine."""

    def __call__(self) -> None:
        self.serve(self)

    def __getstate__(self) -> dict[str, Any]:
        # Locks can only be pickled by this pickler, while a process is being spawned: that is now.
        dumps = dumps_with_main if self.main == {} else ForkingPickler.dumps
        pickled = bytes(dumps((self.worker, self.args, self.kwargs)))
        return self.__dict__ | {"worker": pickled, "args": (), "kwargs": {}}

    def import_main(self) -> bool:
        """Imports the engine's main module; False if this process runs the same one already."""
        if not self.main:
            return False
        import_main(self.main)
        return True

    def unpack(self) -> None:
        """Rebuilds the worker's class and its arguments. DecodeError."""
        try:
            self.worker, self.args, self.kwargs = pickle.loads(cast(bytes, self.worker))
        except Exception as error:
            raise DecodeError(
                "the worker or its arguments can't be rebuilt here: "
                f"{type(error).__name__}: {text_of(error)}; define classes and functions at the top level "
                'of a module or of the script, and not under `if __name__ == "__main__":`'
            ) from error
