"""Launch: what mpspmd-launch tells each process that it starts, in an environment variable."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import MutableMapping
from pathlib import Path

import msgspec

from mpspmd.config import LAUNCH_VARIABLE
from mpspmd.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Launch:
    """One process's part in a launched run."""

    rank: int
    """-1: the engine; on other nodes than 0 the follower, which takes the engine's place."""
    world_size: int
    socket: str
    """The path of the socket by which the engine sends each rank its RankStart."""
    listener: int = -1
    """The engine's descriptor of that socket, which listens before the script begins."""
    node_rank: int = 0
    num_nodes: int = 1
    head: str = ""
    """Over several nodes: node 0's host name or address, and the port at which its engine listens."""
    port: int = 0

    @property
    def is_rank(self) -> bool:
        return self.rank >= 0

    @property
    def untaken(self) -> Path:
        """A file that exists until the script becomes the engine."""
        return Path(f"{self.socket}.untaken")

    def put(self, environ: MutableMapping[str, str]) -> None:
        environ[LAUNCH_VARIABLE] = json.dumps(dataclasses.asdict(self))

    @classmethod
    def take(cls, environ: MutableMapping[str, str] = os.environ) -> Launch | None:
        """Reads and removes the variable, so that a child of this process doesn't take the same part."""
        text = environ.pop(LAUNCH_VARIABLE, None)
        if text is None:
            return None
        try:
            return msgspec.convert(json.loads(text), cls)
        except (ValueError, msgspec.ValidationError) as error:
            raise ConfigError(
                f"{LAUNCH_VARIABLE}={text!r}: {error}; only mpspmd-launch may set it: unset it"
            ) from error


def refuse_an_engine_on_a_rank() -> None:
    """Raises ConfigError if mpspmd-launch has started this process as a rank, and run() wasn't called."""
    text = os.environ.get(LAUNCH_VARIABLE)
    if text and (launch := Launch.take({LAUNCH_VARIABLE: text})) and launch.is_rank:
        raise ConfigError(
            f"mpspmd-launch has started this process as rank {launch.rank}, which can't have an engine of "
            "its own: call mpspmd.run, or start the script without mpspmd-launch"
        )
