"""RankSignals: which signals end a rank, and which it leaves to its engine."""

from __future__ import annotations

import signal
from collections.abc import Callable, Collection

from mpspmd.exceptions.foreign import Terminated
from mpspmd.processes.signals import GROUP_SIGNALS, STACK_SIGNAL, handled_signals
from mpspmd.transport.channel import RankChannel


class RankSignals:
    """People and systems send signals to a whole group of processes. The engine decides what they mean: it
    may finish its work first, and needs its ranks for that.

    So a rank ignores these signals. Only SIGTERM ends it, and only when its run has ended: then the engine
    has sent the signal, or is dead.
    """

    def __init__(self, of_engine: Collection[int] = GROUP_SIGNALS) -> None:
        """Main thread. `of_engine` are the signals that the rank leaves to its engine.

        A spawned rank has started with these signals blocked. A rank that mpspmd-launch has started hasn't:
        until `unblock` is called, a SIGTERM ends it."""
        self._channel: RankChannel | None = None
        self._on_sigterm: Callable[[], None] | None = None
        self._of_engine = frozenset(of_engine) | GROUP_SIGNALS
        self.terminated = False
        """Whether a SIGTERM has raised Terminated. The user's code may have swallowed the exception."""
        self.install_handlers()

    def install_handlers(self) -> None:
        """Call this again when the user's code may have installed handlers. Those for other signals than
        SIGINT and SIGTERM stay."""
        for number in self._of_engine - {signal.SIGTERM} - handled_signals():
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._handle_sigterm)

    def unblock(self, channel: RankChannel) -> None:
        """The channel tells from now on whether the run has ended."""
        self._channel = channel
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {*self._of_engine, STACK_SIGNAL})

    def on_sigterm(self, callback: Callable[[], None]) -> None:
        """Calls back when a SIGTERM ends the rank; at once if one has."""
        self._on_sigterm = callback
        if self.terminated:
            callback()

    def ignore_sigterm(self) -> None:
        """The rank exits already."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def _handle_sigterm(self, number: int, frame: object) -> None:
        if self._channel is None or self._channel.has_ended:
            self.ignore_sigterm()  # a second one must not interrupt the cleaning up
            self.terminated = True
            if self._on_sigterm is not None:
                self._on_sigterm()
            raise Terminated
