"""RankSignals: which signals concern a rank."""

from __future__ import annotations

import contextlib
import signal

from mpspmd.runtime.foreign import Terminated
from mpspmd.runtime.signals import GROUP_SIGNALS
from mpspmd.transport.channel import RankChannel


class RankSignals:
    """What people and systems send to a whole group of processes is for the engine to answer: it may finish
    its work first, and needs its ranks for that.

    So a rank ignores these signals, but for SIGTERM when its run is over: the engine, which ends the run
    before it sends one, wants it to go, or the engine is dead.
    """

    def __init__(self) -> None:
        """Main thread. A spawned rank has blocked these signals until `take`; one that the launcher has
        started has not, and leaves on SIGTERM until then."""
        self._channel: RankChannel | None = None
        self.set_handlers()

    def set_handlers(self) -> None:
        """Again, when the user's code may have set its own. Those for other signals than SIGINT and SIGTERM
        stay."""
        for number in GROUP_SIGNALS - {signal.SIGTERM} - _caught():
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._on_sigterm)

    def take(self, channel: RankChannel) -> None:
        """From now on the channel tells whether the run is over."""
        self._channel = channel
        signal.pthread_sigmask(signal.SIG_UNBLOCK, GROUP_SIGNALS)

    def ignore(self) -> None:
        """The rank leaves already."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def _on_sigterm(self, number: int, frame: object) -> None:
        if self._channel is None or self._channel.has_ended:
            self.ignore()  # one that comes again mustn't cut short what follows from this
            raise Terminated


def _caught() -> set[signal.Signals]:
    """The signals that somebody has a handler for, such as faulthandler's, of which Python doesn't know."""
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("SigCgt:"):
                mask = int(line.split()[1], 16)
                return {number for number in GROUP_SIGNALS if mask >> (number - 1) & 1}
    return set()
