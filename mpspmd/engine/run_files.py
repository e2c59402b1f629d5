"""RunFiles: a run's folder, the janitor that removes it, and the control plane's socket in it."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import zmq

from mpspmd.config import RuntimeConfig
from mpspmd.control.plane import EnginePlane, control_address
from mpspmd.engine.versions import versions
from mpspmd.errors import ConfigError, SegmentError
from mpspmd.machine.advice import with_advice
from mpspmd.processes.janitor import DumpSource, Janitor
from mpspmd.processes.run_dir import RunDir, known_places
from mpspmd.transport.channel import ChannelSegments

logger = logging.getLogger(__name__)


class RunFiles:
    """Made and closed by the engine. SegmentError when it can't be made; then nothing is left."""

    def __init__(
        self, config: RuntimeConfig, remove_at_end: Sequence[str], segments: ChannelSegments
    ) -> None:
        """ConfigError if dumps can't be written into their folder."""
        dump = _dump_source(config.dump_dir, segments) if config.dump_dir else None
        try:
            with ExitStack() as made:
                self.janitor = Janitor(known_places(config.runtime_dir), remove_at_end, dump)
                made.callback(self.janitor.close)
                self._run_dir = RunDir(config.runtime_dir, self.janitor.remove_at_end)
                made.callback(self.janitor.shut_down)
                made.callback(self._run_dir.remove)
                self.plane = EnginePlane(control_address(self.folder))
                self._made = made.pop_all()
        except (OSError, zmq.ZMQError) as error:
            if isinstance(error, SegmentError):
                raise
            raise SegmentError(
                f"the control plane can't be opened: {with_advice(error)}"
            ) from error
        if why := self._run_dir.passed_over:
            logger.warning("the run's folder is %s (%s)", self.folder, why)

    @property
    def folder(self) -> Path:
        return self._run_dir.path

    def close(self) -> None:
        """Removes the folder. The plane must have been closed, by its thread or after that has ended."""
        self._made.close()

    def close_copies(self) -> None:
        """In a process forked from the engine's: the run goes on without it."""
        self.janitor.close_copies()


def _dump_source(folder: str, segments: ChannelSegments) -> DumpSource:
    folder = os.path.abspath(folder)
    if not os.access(folder, os.W_OK | os.X_OK) or not os.path.isdir(folder):
        raise ConfigError(f"dump_dir={folder!r}: must be a folder that this user can write to")
    recorder = segments.recorder
    assert recorder is not None  # RuntimeConfig allows no dump_dir without it
    about = {"pid": os.getpid(), "versions": versions()}
    return DumpSource(folder, segments.status.fd, recorder.fd, segments.records_at, about)
