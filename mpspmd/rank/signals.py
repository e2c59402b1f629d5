"""RankSignals: which signals concern a rank."""

from __future__ import annotations

import signal
from collections.abc import Callable, Collection

from mpspmd.exceptions.foreign import Terminated
from mpspmd.processes.signals import GROUP_SIGNALS, STACK_SIGNAL, handled_signals
from mpspmd.transport.channel import RankChannel


class RankSignals:
    """What people and systems send to a whole group of processes is for the engine to answer: it may finish
    its work first, and needs its ranks for that.

    So a rank ignores these signals, but for SIGTERM when its run is over: the engine, which ends the run
    before it sends one, wants it to go, or the engine is dead.
    """

    def __init__(self, of_engine: Collection[int] = GROUP_SIGNALS) -> None:
        """Main thread. `of_engine` are signals that the rank leaves to its engine.

        A spawned rank has blocked these signals until `take`. One that the launcher has started has not,
        and leaves on SIGTERM until then."""
        self._channel: RankChannel | None = None
        self._leave: Callable[[], None] | None = None
        self._of_engine = frozenset(of_engine) | GROUP_SIGNALS
        self.has_terminated = False
        """Whether a SIGTERM has ended what the main thread did. Users' code may have swallowed that."""
        self.set_handlers()

    def set_handlers(self) -> None:
        """Again, when the user's code may have set its own. Those for other signals than SIGINT and SIGTERM
        stay."""
        for number in self._of_engine - {signal.SIGTERM} - handled_signals():
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._on_sigterm)

    def take(self, channel: RankChannel) -> None:
        """From now on the channel tells whether the run is over."""
        self._channel = channel
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {*self._of_engine, STACK_SIGNAL})

    def on_sigterm(self, leave: Callable[[], None]) -> None:
        """Calls `leave` when a SIGTERM ends the rank; now, if one has."""
        self._leave = leave
        if self.has_terminated:
            leave()

    def ignore(self) -> None:
        """The rank leaves already."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def _on_sigterm(self, number: int, frame: object) -> None:
        if self._channel is None or self._channel.has_ended:
            self.ignore()  # one that comes again mustn't cut short what follows from this
            self.has_terminated = True
            if self._leave is not None:
                self._leave()
            raise Terminated
