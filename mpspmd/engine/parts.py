"""Parts: what an engine's calls use, so that they need not know Engine."""

from __future__ import annotations

from mpspmd.engine.sender import Sender
from mpspmd.engine.waiting import Waiting
from mpspmd.errors import ConfigError
from mpspmd.wire import ALL, ReplyRanks


class Parts(Waiting):
    """`Engine` derives from it, and makes the parts."""

    _world_size: int
    _sending: Sender

    def _check_reply_ranks(self, ranks: ReplyRanks) -> None:
        if ranks is None or ranks == ALL:
            return
        if not isinstance(ranks, int) or not 0 <= ranks < self._world_size:
            raise ConfigError(
                f"reply_ranks={ranks!r}: must be a rank from 0 to {self._world_size - 1}, "
                f"{ALL!r} or None"
            )
