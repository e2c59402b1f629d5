"""The control plane's messages: msgspec structs in MessagePack, never pickle."""

from __future__ import annotations

from typing import TypeAlias, TypeVar

import msgspec


class Message(msgspec.Struct, tag_field="type", frozen=True):
    """The base: the class's name travels as `type`."""


class Hello(Message, tag="hello", frozen=True):
    """Rank to engine: this process is there."""

    rank: int
    pid: int


class Ready(Message, tag="ready", frozen=True):
    """Rank to engine: the worker is made, and the loop begins."""

    rank: int
    seconds: float


class Fault(Message, tag="fault", frozen=True):
    """Rank to engine: an exception, in a method or at the start (step 0)."""

    rank: int
    method: str
    step: int
    exception: str
    message: str
    traceback: str
    unknown_method: bool = False


class Ping(Message, tag="ping", frozen=True):
    """Engine to rank; the control thread answers, also while the main thread computes."""

    nonce: int


class Pong(Message, tag="pong", frozen=True):
    rank: int
    nonce: int


class Dump(Message, tag="dump", frozen=True):
    """Engine to rank: what are your threads executing?"""

    nonce: int


class Stacks(Message, tag="stacks", frozen=True):
    rank: int
    nonce: int
    text: str


class Shutdown(Message, tag="shutdown", frozen=True):
    """Engine to rank: leave as soon as the current method returns."""


class Leaving(Message, tag="leaving", frozen=True):
    """Rank to engine: the process is about to end, though nobody has asked it to."""

    rank: int
    cause: str


class Goodbye(Message, tag="goodbye", frozen=True):
    """Rank to engine: the worker has shut down, and the process leaves."""

    rank: int


ToEngine: TypeAlias = Hello | Ready | Fault | Pong | Stacks | Leaving | Goodbye
ToRank: TypeAlias = Ping | Dump | Shutdown

_M = TypeVar("_M")

_encoder = msgspec.msgpack.Encoder()
_to_engine: msgspec.msgpack.Decoder[ToEngine] = msgspec.msgpack.Decoder(ToEngine)
_to_rank: msgspec.msgpack.Decoder[ToRank] = msgspec.msgpack.Decoder(ToRank)


def encode(message: Message) -> bytes:
    try:
        return _encoder.encode(message)
    except UnicodeEncodeError:
        # A file's name, say, in an exception's text: MessagePack has UTF-8 only.
        return _encoder.encode(msgspec.structs.replace(message, **_as_utf8(message)))


def _as_utf8(message: Message) -> dict[str, str]:
    return {
        name: value.encode(errors="backslashreplace").decode()
        for name, value in msgspec.structs.asdict(message).items()
        if isinstance(value, str)
    }


def decode_to_engine(data: bytes) -> ToEngine:
    """msgspec.DecodeError (msgspec.ValidationError too) when `data` is no such message."""
    return _decode(_to_engine, data)


def decode_to_rank(data: bytes) -> ToRank:
    """As decode_to_engine(), for what an engine sends."""
    return _decode(_to_rank, data)


def _decode(decoder: msgspec.msgpack.Decoder[_M], data: bytes) -> _M:
    try:
        return decoder.decode(data)
    except UnicodeDecodeError as error:
        raise msgspec.DecodeError(f"a text isn't UTF-8: {error}") from error
