"""Messages between the bridges of a run, and between the engine and its bridge: MessagePack, never pickle.

What is in `Start` as bytes has been pickled by the head's engine, for the ranks of the other nodes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from mpspmd.control.messages import Message, decoder_of
from mpspmd.transport.channel import Poison

PROTOCOL = 2
"""Changes with what the bridges say to each other."""


class Join(Message, tag="join", frozen=True):
    """Node to head: this node wants to take part."""

    protocol: int
    version: str
    """Of mpspmd."""
    node: int
    num_nodes: int
    local_world_size: int
    world_size: int
    host: str
    """For messages to people."""


class Welcome(Message, tag="welcome", frozen=True):
    """Head to node: the node takes part. `session` is in each frame from now on."""

    session: bytes
    settings: dict[str, Any]
    """The fields of RuntimeConfig that must be the same on all nodes."""


class Refused(Message, tag="refused", frozen=True):
    """Head to node: the node can't take part, or has been given up."""

    why: str


class Start(Message, tag="start", frozen=True):
    """Head to node: start the ranks."""

    worker: bytes
    """The worker and its arguments, for a node that has none of its own."""
    step_codec: bytes
    hash_seed: str


class ToRank(Message, tag="to-rank", frozen=True):
    """Engine to a rank: a message of the control plane."""

    rank: int
    data: bytes


class FromRank(Message, tag="from-rank", frozen=True):
    """A rank to the engine: a message of the control plane."""

    data: bytes


class Signal(Message, tag="signal", frozen=True):
    """Engine to a node: send this signal to the rank's process."""

    rank: int
    number: int


class RingsEnd(Message, tag="rings-end", frozen=True):
    """Head to node: the engine's rings are closed or poisoned, the request ring with this tail."""

    state: str
    code: int
    rank: int
    tail: int
    exception: str = ""
    """What ends the head's program, if it is an exception."""

    @property
    def why(self) -> str:
        """Why the run has failed, in words."""
        if self.exception:
            return f"the head's program has ended by {self.exception}"
        if self.code == Poison.ENGINE_DIED:
            return "the engine has ended without a shutdown"
        return f"rank {self.rank} has {'died' if self.code == Poison.RANK_DIED else 'failed'}"


class Dying(Message, tag="dying", frozen=True):
    """Node to head: the rank's process has ended. Why follows in an Ended."""

    rank: int


class Ended(Message, tag="ended", frozen=True):
    """Node to head, and bridge to engine: the rank's process has ended, and why."""

    rank: int
    pid: int
    code: int | None
    reason: str


class NodeGone(Message, tag="node-gone", frozen=True):
    """Bridge to engine: the node doesn't answer any more."""

    reason: str


class Failed(Message, tag="failed", frozen=True):
    """Node to head: the node can't start its ranks. Engine to bridge: an exception ends its program."""

    why: str


class Bye(Message, tag="bye", frozen=True):
    """Head to node: the run is over; nothing more will come. Node to head: nor from here."""


ToNode: TypeAlias = Start | ToRank | Signal | RingsEnd | Bye
ToHead: TypeAlias = FromRank | Dying | Ended | Failed | Bye
Greeting: TypeAlias = Join | Welcome | Refused | Failed
ToBridge: TypeAlias = ToRank | Signal | Failed
EndOfRank: TypeAlias = Ended | NodeGone

decode_to_node: Callable[[bytes], ToNode] = decoder_of(ToNode)
decode_to_head: Callable[[bytes], ToHead] = decoder_of(ToHead)
decode_greeting: Callable[[bytes], Greeting] = decoder_of(Greeting)
decode_to_bridge: Callable[[bytes], ToBridge] = decoder_of(ToBridge)
decode_end: Callable[[bytes], EndOfRank] = decoder_of(EndOfRank)
