"""Follower: this node's ranks, which work for an engine on another node."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType
from typing import Any

from mpspmd.bridge.link import BadFrame, Link
from mpspmd.bridge.messages import (
    Bye,
    Failed,
    FromRank,
    RingsEnd,
    Signal,
    Start,
    ToNode,
    ToRank,
    decode_to_node,
)
from mpspmd.bridge.serving import Serving
from mpspmd.bridge.streams import MessageSink, MessageSource, RingSink, RingSource
from mpspmd.codec.steps import PickledStepCodec
from mpspmd.config import RuntimeConfig
from mpspmd.control import messages as control
from mpspmd.engine.ranks import Ranks, WorkerSpec
from mpspmd.engine.run_files import RunFiles
from mpspmd.errors import ConfigError, MpSpmdError, text_of
from mpspmd.nodes.connection import Connection
from mpspmd.nodes.head_watch import HeadWatch
from mpspmd.nodes.reports import Reports
from mpspmd.notice import notice
from mpspmd.transport.channel import ChannelSegments, FollowerChannel, Poison
from mpspmd.turns import Flag

logger = logging.getLogger(__name__)

_TURN_S = 0.05
_RETRY_S = 0.001
"""How soon a request is written again for which the request ring had no space."""
_WAIT_S = 0.1
"""The main thread waits in slices, because the kernel may give Ctrl-C to another thread."""
_PATIENCE_S = 1.0
"""How long workers may take to shut down in a run that has failed."""
_LOST_PATIENCE_S = 0.3
"""How long they may take when the head is gone: nobody waits for them any more."""
_BYE_S = 1.0
"""How long the last messages may take, when all ranks have ended."""
_SLICE_S = 1.0


def the_heads_worker(*args: Any, **kwargs: Any) -> None:
    """In a WorkerSpec: the ranks make the worker that the head sends."""
    raise MpSpmdError("the head's worker takes this one's place")


class Follower:
    """The main thread starts and ends the ranks. One more thread sends their replies, one receives, and one
    does all else; these three take turns by a lock."""

    def __init__(
        self,
        connection: Connection,
        session: bytes,
        config: RuntimeConfig,
        spec: WorkerSpec,
        remove_at_end: Sequence[str] = (),
    ) -> None:
        """`spec` lacks what the head sends. SegmentError, ConfigError."""
        self._connection = connection
        self._config = config
        self._spec = spec
        self._place = place = connection.place
        with ExitStack() as made:
            self._segments = segments = ChannelSegments.create(place.local_world_size, config)
            made.callback(segments.close)
            self._channel = channel = FollowerChannel(segments)
            made.callback(channel.release)
            self._files = files = RunFiles(config, remove_at_end, segments)
            made.callback(files.close)
            self._ranks = ranks = Ranks(place.world_size, config, channel.status, place)
            made.callback(ranks.close)
            self._made = made.pop_all()
        self._plane = files.plane
        self._messages = MessageSource()
        self._received: MessageSink[ToNode] = MessageSink(decode_to_node)
        self._requests = RingSink(channel.requests)
        replies = [
            RingSource(channel.tap, ring, [index]) for index, ring in enumerate(channel.reply_rings)
        ]
        self._link = Link(
            session,
            [self._messages, *replies],
            [self._received, self._requests],
            connection.socket.send,
        )
        self._serving = Serving(self._note_failure)
        self._lock = self._serving.lock
        self._reports = Reports(place, ranks, channel, self._messages.put, self._lock)
        self._start: Start | None = None
        self._end: RingsEnd | None = None
        self._changed = Flag()
        """The main thread has something to do."""
        self._rings_ended = ""
        """How: "closed" or "poisoned"."""
        self._has_failed = False
        """The run has failed."""
        self._head_lost = ""
        self._has_bye = False
        self._head = HeadWatch(connection, config.node_timeout_s)

    # The main thread.

    def run(self) -> int:
        """Returns the exit code when the run has ended."""
        self._plane.watch(self._channel.deaths_fd)
        self._serving.start(self._serve, "node")
        self._serving.start(self._copy_replies, "replies")
        self._serving.start_receiving(self._connection.socket, self._take_frames_and_wake)
        self._wait(lambda: self._start is not None or bool(self._rings_ended))
        if self._start is not None:
            self._start_ranks(self._start)
        self._wait(lambda: bool(self._rings_ended))
        self._end_ranks()
        self._wait(lambda: self._has_bye or bool(self._head_lost), _BYE_S)
        return 1 if self._has_failed or self._head_lost else 0

    def _wait(self, condition: Callable[[], bool], timeout_s: float | None = None) -> None:
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while not condition() and (until is None or time.monotonic() < until):
            self._changed.wait(_WAIT_S)
            self._changed.clear()

    def _start_ranks(self, start: Start) -> None:
        has_own = self._spec.worker is not the_heads_worker
        try:
            if not has_own and not start.worker:
                raise ConfigError("the head sends no worker, and follow() has none of its own here")
            spec = replace(
                self._spec,
                step_codec=PickledStepCodec(start.step_codec),
                pickled=None if has_own else start.worker,
                hash_seed=start.hash_seed,
            )
            self._ranks.start(spec, self._segments, self._files, self._channel.deaths_fd)
        except Exception as error:
            with self._lock:
                self._messages.put(Failed(f"{type(error).__name__}: {text_of(error)}"))
            self._plane.wake()
            self._wait(lambda: bool(self._rings_ended), self._config.node_timeout_s)
            raise
        finally:
            self._segments.close()
            self._reports.watch_from_now_on()
            self._plane.wake()

    def _end_ranks(self) -> None:
        """Returns when they have ended. After an orderly end of the run the engine decides when they
        get signals; otherwise they have a moment."""
        processes = self._ranks.processes
        if self._rings_ended == "closed":
            self._wait(
                lambda: bool(self._head_lost) or not any(each.is_alive() for each in processes)
            )
        self._ranks.end(_LOST_PATIENCE_S if self._head_lost else _PATIENCE_S)

    def __enter__(self) -> Follower:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self._end_by(error)
        self._serving.is_closing = True
        self._plane.wake()
        self._channel.tap.interrupt()
        self._serving.close()
        self._plane.close()
        self._made.close()

    def _end_by(self, error: BaseException) -> None:
        """Ends the ranks, and tells the head why: an exception, Ctrl-C or SIGTERM ends this node."""
        what = "an exception"
        if isinstance(error, KeyboardInterrupt | SystemExit):
            what = "Ctrl-C" if isinstance(error, KeyboardInterrupt) else "SIGTERM"
        with self._lock:
            self._reports.because = f"node {self._place.node_rank} was ended by {what}"
        self._channel.expect_deaths()
        self._channel.poison(Poison.ENGINE_DIED, -1)
        self._ranks.end(_PATIENCE_S)
        self._plane.wake()
        self._wait(lambda: self._has_bye or bool(self._head_lost), _BYE_S)

    # The other threads.

    def _note_failure(self, error: BaseException) -> None:
        notice(logger.error, "node %d can't serve", self._place.node_rank, exc_info=error)
        self._give_up(f"{type(error).__name__}: {text_of(error)}")

    def _take_frames_and_wake(self) -> None:
        self._take_frames()
        if self._received.messages or self._requests.waiting:
            self._plane.wake()

    # The thread that sends replies.

    def _copy_replies(self) -> None:
        rings = self._channel.reply_rings
        while not self._serving.is_closing:
            with self._lock:
                tails = tuple([ring.tail for ring in rings])
                self._link.pump()
                self._take_frames_and_wake()
            if rings[0].state[0] != "open":
                return  # the other thread sends what is left
            self._channel.tap.wait(tails, _SLICE_S)

    # The thread that does all else.

    def _serve(self) -> None:
        while not self._serving.is_closing:
            self._plane_turn(_RETRY_S if self._requests.waiting else _TURN_S)
        self._plane_turn(0)

    def _plane_turn(self, timeout_s: float) -> None:
        ready, said = self._plane.poll(timeout_s)
        with self._lock:
            for message in said:
                self._reports.note(message)
                self._messages.put(FromRank(control.encode(message)))
            self._take_frames()
            while (command := self._received.next()) is not None:
                self._take(command)
            self._requests.retry()
            self._apply_end()
            if self._reports.tell(ready, self._plane, expected=bool(self._rings_ended)):
                self._changed.set()
            now = time.monotonic()
            # What the head's status page shows is never older than what a rank has said.
            if said or self._link.is_beat_due(now):
                self._link.beat(now, self._reports.lines(now))
            self._link.pump()
        self._check_head()

    def _take_frames(self) -> None:
        for frame in self._connection.socket.frames():
            try:
                # Another Welcome may come: it answers an earlier Join.
                if self._connection.greeting_in(frame) is None:
                    self._link.receive(frame)
            except BadFrame as error:
                logger.warning("dropped what no head of this version sends: %s", error)

    def _take(self, message: ToNode) -> None:
        match message:
            case Start():
                self._start = message
                self._changed.set()
            case ToRank(rank=rank, data=data):
                command = control.decode_to_rank(data)
                if isinstance(command, control.Dump):
                    self._reports.expect_stacks(rank, command.nonce)
                self._plane.send(rank, command)
            case Signal(rank=rank, number=number):
                index = rank - self._place.ranks[0]
                if 0 <= index < len(self._ranks.processes):
                    self._ranks.processes[index].send_signal(number)
            case RingsEnd():
                self._end = message
            case Bye():
                self._messages.put(Bye())
                self._has_bye = True
                self._changed.set()

    def _apply_end(self) -> None:
        """Ends this node's rings in the way in which the engine's have ended. Before it closes them, all
        requests must be there."""
        end = self._end
        if end is None or (end.state == "closed" and self._requests.accepted < end.tail):
            return
        self._end = None
        if self._rings_ended:
            return
        if end.state == "closed":
            self._channel.expect_deaths()
            self._channel.close()
        else:
            self._channel.poison(end.code, end.rank)
        self._has_failed = end.state != "closed" or bool(end.exception)
        if self._has_failed and not self._reports.because:
            logger.error("node %d ends: %s", self._place.node_rank, end.why)
        self._set_ended(end.state)

    def _set_ended(self, state: str) -> None:
        self._rings_ended = self._rings_ended or state
        self._changed.set()

    def _check_head(self) -> None:
        """Without the lock: this may take a moment."""
        if not (self._head_lost or self._has_bye) and (why := self._head.why_lost(self._link)):
            self._give_up(f"the head at {self._place.address} is lost: {why}")

    def _give_up(self, why: str) -> None:
        self._head_lost = why
        if not self._rings_ended:
            logger.error("node %d ends: %s", self._place.node_rank, why)
        with self._lock:
            self._channel.expect_deaths()
            self._channel.poison(Poison.ENGINE_DIED, -1)
            self._set_ended("poisoned")
