"""The messages of the control plane: msgspec structs in MessagePack, never pickle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec

from mpspmd.collective import Collective
from mpspmd.exceptions.fault import Fault


class Message(msgspec.Struct, tag_field="type", frozen=True):
    """The base. The tag of the class travels as `type`."""


class Hello(Message, tag="hello", frozen=True):
    """Rank to engine: the process is connected, and has installed its signal handlers."""

    rank: int


class Ready(Message, tag="ready", frozen=True):
    """Rank to engine: the worker is made, and the rank takes requests."""

    rank: int


class Dump(Message, tag="dump", frozen=True):
    """Engine to rank: send the stacks of your threads."""

    nonce: int


class Stacks(Message, tag="stacks", frozen=True):
    """Rank to engine: the answer to the Dump with the same nonce."""

    rank: int
    nonce: int
    text: str
    collectives: tuple[Collective, ...] = ()


class Shutdown(Message, tag="shutdown", frozen=True):
    """Engine to rank: exit as soon as the current method returns."""


class Exiting(Message, tag="exiting", frozen=True):
    """Rank to engine: the process is about to exit, though the engine hasn't asked it to."""

    rank: int
    cause: str


class Usages(Message, tag="usages", frozen=True):
    """Bridge to engine, twice a second: what the processes of other nodes' ranks do."""

    usages: tuple[tuple[int, str, float], ...]
    """Each rank with its process's state and CPU time in seconds."""


ToEngine: TypeAlias = Hello | Ready | Fault | Stacks | Exiting | Usages
ToRank: TypeAlias = Dump | Shutdown

_encoder = msgspec.msgpack.Encoder()


def encode(message: Message | Fault) -> bytes:
    try:
        return _encoder.encode(message)
    except UnicodeEncodeError:
        # The text of an exception may hold a file name that isn't UTF-8. MessagePack takes only UTF-8.
        return _encoder.encode(msgspec.structs.replace(message, **_as_utf8(message)))


def _as_utf8(message: Message | Fault) -> dict[str, str]:
    return {
        name: value.encode(errors="backslashreplace").decode()
        for name, value in msgspec.structs.asdict(message).items()
        if isinstance(value, str)
    }


def decoder_of(kinds: Any) -> Callable[[bytes], Any]:
    """Decodes messages of these classes. It raises msgspec.DecodeError if the bytes are no such message;
    msgspec.ValidationError is a subclass."""
    decoder = msgspec.msgpack.Decoder(kinds)

    def decode(data: bytes) -> Any:
        try:
            return decoder.decode(data)
        except UnicodeDecodeError as error:
            raise msgspec.DecodeError(f"a text isn't UTF-8: {error}") from error

    return decode


decode_to_engine: Callable[[bytes], ToEngine] = decoder_of(ToEngine)
decode_to_rank: Callable[[bytes], ToRank] = decoder_of(ToRank)
