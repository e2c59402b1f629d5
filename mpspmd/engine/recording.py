"""How an engine records its requests and replies. Without MPSPMD_RECORD_REQUESTS nothing here runs."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Collection
from typing import Any

from mpspmd._ring import pack
from mpspmd.codec.objects import Message
from mpspmd.codec.steps import EngineEnd, ReplyContext
from mpspmd.config import RuntimeConfig
from mpspmd.engine.ranks import WorkerSpec
from mpspmd.engine.requests import RequestEncoder
from mpspmd.engine.versions import versions
from mpspmd.errors import text_of
from mpspmd.recording.layout import About, Spec, Type, as_rank
from mpspmd.recording.writer import RecordingWriter
from mpspmd.wire import KIND_PACKED, Method, ReplyRanks, name_of

logger = logging.getLogger(__name__)

_SETTINGS = ("request_ring_bytes", "reply_ring_bytes", "wait")
_PREFIXES = ("VLLM_", "OMP_", "MKL_", "TORCH", "CUDA_", "NCCL_", "GLOO_", "PYTHONHASHSEED")
_SECRETS = {"KEY", "TOKEN", "SECRET", "PASSWORD"}


def start_recording(
    config: RuntimeConfig, spec: WorkerSpec, world_size: int, fatal_methods: Collection[str]
) -> RecordingWriter:
    """ConfigError if the file can't be made."""
    assert config.record_requests is not None
    environ = {
        name: text
        for name, text in os.environ.items()
        if name.startswith(_PREFIXES) and not _SECRETS & {*name.split("_")}
    }
    if spec.hash_seed:
        environ["PYTHONHASHSEED"] = spec.hash_seed
    worker = spec.worker
    about = About(
        pid=os.getpid(),
        time=time.time(),
        world_size=world_size,
        worker=f"{worker.__module__}:{getattr(worker, '__qualname__', '')}",
        fatal_methods=sorted(fatal_methods),
        versions=versions(),
        environ=environ,
        settings={name: getattr(config, name) for name in _SETTINGS},
    )
    parts = (worker, (spec.args, spec.kwargs), spec.step_codec)
    pickles = Spec(*(_pickled(part) for part in parts))
    return RecordingWriter(config.record_requests, config.record_requests_bytes, about, pickles)


def _pickled(value: object) -> bytes:
    """Pickles what the main module defines by value, because a replay has another main module."""
    import cloudpickle

    try:
        return bytes(cloudpickle.dumps(value))
    except Exception as error:  # what pickling raises is up to the objects
        logger.warning("the recording has no %s: %s", type(value).__qualname__, text_of(error))
        return b""


class RecordingEncoder(RequestEncoder):
    """Records each request before it is sent, so that the one which kills a rank is there."""

    encodes_all = True

    def __init__(
        self, step_end: EngineEnd | None, by_value: bool, recording: RecordingWriter
    ) -> None:
        super().__init__(step_end, by_value)
        self._recording = recording
        self._unsent = 0

    def encode(
        self,
        step: int,
        method: Method,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        reply_ranks: ReplyRanks,
    ) -> tuple[int, Message, ReplyContext | None]:
        recording = self._recording
        if self._unsent:
            recording.add(Type.UNSENT, step=self._unsent)
            self._unsent = 0
        end = self.step_end
        if recording.is_full(None if end is None else len(end)):
            if end is not None:
                end.begin_anew(step)
            recording.rotate(step)
        kind, message, context = super().encode(step, method, args, kwargs, reply_ranks)
        self._unsent = step
        recording.add(Type.REQUEST, kind, as_rank(reply_ranks), step, name_of(method), message)
        return kind, message, context

    def sent(self, kind: int) -> None:
        super().sent(kind)
        self._unsent = 0

    def close(self) -> None:
        """The run has ended."""
        if self._unsent:
            self._recording.add(Type.UNSENT, step=self._unsent)
        self._recording.close()

    def note_reply(self, rank: int, kind: int, step: int, payload: Any) -> None:
        """Records a reply, before it is decoded. Only for the thread that reads replies."""
        if kind & KIND_PACKED and (packed := pack(payload)) is not None:
            payload = packed
        self._recording.add(Type.REPLY, kind, rank, step, payload=payload)
