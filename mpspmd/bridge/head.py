"""HeadBridge: copies the engine's requests to all other nodes, and their ranks' replies to the engine."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time

from mpspmd import __version__
from mpspmd.bridge.link import BadFrame, greeting, greeting_in
from mpspmd.bridge.messages import (
    PROTOCOL,
    Bye,
    Dying,
    Ended,
    Failed,
    FromRank,
    Greeting,
    Join,
    Refused,
    RingsEnd,
    Signal,
    Start,
    ToHead,
    Welcome,
    decode_to_bridge,
)
from mpspmd.bridge.node import Node
from mpspmd.bridge.serving import Serving
from mpspmd.bridge.sockets import HeadSocket
from mpspmd.bridge.start import BridgeStart
from mpspmd.control.messages import Ready, Usages, decode_to_engine
from mpspmd.control.plane import RankPlane, control_address
from mpspmd.transport.channel import BridgeChannel

logger = logging.getLogger(__name__)

_TURN_S = 0.05
_RETRY_S = 0.001
"""How soon a reply is written again for which the reply ring had no space."""
_USAGE_S = 0.5
_BYE_S = 0.7
"""How long the last messages may take to reach the nodes, when all else is over."""
_SLICE_S = 1.0


class HeadBridge:
    """Three threads take turns by a lock: one waits for requests of the engine, and sends them; one waits
    for frames; the main thread does all else. Whoever has sent takes the frames that have come, too."""

    def __init__(self, start: BridgeStart) -> None:
        self._start = start
        self._place = place = start.place
        remote = range(place.local_world_size, place.world_size)
        self._channel = channel = BridgeChannel(start.segments, remote)
        start.segments.close()
        self._nodes = [
            Node(number, place.ranks_of(number), channel, start.ends)
            for number in range(1, place.num_nodes)
        ]
        self._by_name: dict[bytes, Node] = {}
        self._commands = socket.socket(fileno=start.commands.fd)
        self._commands.setblocking(False)
        self._plane = RankPlane(control_address(start.run_dir), remote[0])
        self._socket = HeadSocket(place, start.keys, start.listener)
        self._plane.watch(self._commands.fileno())
        self._serving = Serving(self._note_failure)
        self._lock = self._serving.lock
        self._failure: BaseException | None = None
        self._rings_ended = False
        self._exception = ""
        """What ends the engine's program, if it is an exception."""
        self._next_usage = 0.0
        self._over_by: float | None = None

    def run(self) -> None:
        """Returns when the run is over and all nodes know it. Raises what a thread has raised."""
        self._serving.start(self._copy_requests, "requests")
        self._serving.start_receiving(self._socket, self._take_frames_and_wake)
        while not self._is_over():
            waiting = any(node.is_waiting for node in self._nodes)
            self._plane.poll(_RETRY_S if waiting else _TURN_S)
            if self._failure is not None:
                raise self._failure
            with self._lock:
                self._take_commands()
                self._take_frames()
                self._take_turn()
        self._serving.is_closing = True
        self._channel.tap.interrupt()
        self._serving.close()
        self._plane.poll(0)
        self._socket.close(linger_ms=500)
        self._plane.close()

    # The thread that sends requests.

    def _copy_requests(self) -> None:
        tap, ring = self._channel.tap, self._channel.request_ring
        # All readers read the same ring, so it is enough to wait for one of them.
        others = (None,) * (len(self._channel.replies) - 1)
        while not self._rings_ended:
            with self._lock:
                tail = ring.tail
                for node in self._nodes:
                    if node.is_linked:
                        node.link.pump()
                self._take_frames_and_wake()
                if ring.state[0] != "open" and not self._rings_ended:
                    self._end_rings()
            tap.wait((tail, *others), _SLICE_S)
        self._plane.wake()

    def _end_rings(self) -> None:
        """The engine has closed or poisoned its rings, or has died, or a rank has."""
        self._rings_ended = True
        self._take_commands()  # if it has closed them, it may have said before that it fails
        state, code, rank = self._channel.request_ring.state
        tail = self._channel.request_ring.tail
        for node in self._linked():
            node.messages.put(RingsEnd(state, code, rank, tail, self._exception))
            node.link.pump()

    # These two threads.

    def _take_frames_and_wake(self) -> None:
        if self._take_frames():
            self._plane.wake()

    def _note_failure(self, error: BaseException) -> None:
        self._failure = error
        self._plane.wake()

    # The thread that does all else.

    def _take_commands(self) -> None:
        """Any thread, with the lock. Does what the engine asks for."""
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while data := self._commands.recv(1 << 16):
                command = decode_to_bridge(data)
                if isinstance(command, Failed):
                    self._exception = command.why
                    continue
                node = self._nodes[self._place.node_of(command.rank) - 1]
                if node.is_linked:
                    node.messages.put(command)
                elif isinstance(command, Signal):
                    node.end_all("its node has not joined", gone=False)

    def _take_frames(self) -> bool:
        """Any thread, with the lock. Whether there is something to do for the thread that does all else."""
        is_work = False
        for name, frame in self._socket.frames():
            try:
                message = greeting_in(frame)
                if message is not None:
                    self._greet(name, message)
                elif (node := self._by_name.get(name)) is not None and node.is_linked:
                    is_work = node.receive(frame) or is_work
                else:
                    self._answer(name, Refused("the head doesn't know this node any more"))
            except BadFrame as error:
                logger.warning("dropped what no node of this version sends: %s", error)
        return is_work

    def _answer(self, name: bytes, message: Welcome | Refused) -> None:
        self._socket.send(name, greeting(message))

    def _greet(self, name: bytes, message: Greeting) -> None:
        known = self._by_name.get(name)
        match message:
            case Join() if known is not None and known.is_linked:
                self._answer(name, Welcome(known.session, self._start.settings))
            case Join():
                self._join(name, message)
            case Failed(why=why) if known is not None:
                known.end_all(f"node {known.number} ({known.host}): {why}", gone=False)
            case _:
                raise BadFrame(type(message).__name__)

    def _join(self, name: bytes, join: Join) -> None:
        if why := self._why_not(join):
            self._answer(name, Refused(why))
            logger.error("node %d (%s) can't join: %s", join.node, join.host, why)
            # A run that has started goes on without it. One that is starting was meant otherwise.
            if starting := [node for node in self._nodes if not node.is_ready]:
                self._fail_start(starting[0], f"node {join.node} ({join.host}) can't join: {why}")
            return
        node = self._nodes[join.node - 1]
        node.join(
            join.host, lambda frame: self._socket.send(name, frame), self._start.node_timeout_s
        )
        self._by_name[name] = node
        start = self._start
        node.messages.put(Start(start.worker, start.step_codec, start.hash_seed))
        self._answer(name, Welcome(node.session, start.settings))
        self._channel.tap.interrupt()  # so that the other thread sends the node's messages at once
        logger.info("node %d (%s) has joined", node.number, node.host)

    def _why_not(self, join: Join) -> str:
        place = self._place
        if (join.protocol, join.version) != (PROTOCOL, __version__):
            return (
                f"it has mpspmd {join.version} (protocol {join.protocol}), and the head has "
                f"{__version__} (protocol {PROTOCOL}): install the same version on all nodes"
            )
        for what in ("world_size", "num_nodes", "local_world_size"):
            theirs, ours = getattr(join, what), getattr(place, what)
            if theirs != ours:
                return f"it was started with {what}={theirs}, and the head with {ours}"
        if not 1 <= join.node < place.num_nodes:
            return f"node_rank={join.node}: must be from 1 to {place.num_nodes - 1}"
        if (node := self._nodes[join.node - 1]).session:
            return f"node_rank={join.node}: node {join.node} has joined from {node.host} already"
        return "the run has ended" if self._rings_ended else ""

    def _fail_start(self, node: Node, why: str) -> None:
        """The engine learns it as the end of the node's ranks."""
        node.end_all(why, gone=False)
        self._channel.poison(node.ranks[0])

    def _take_turn(self) -> None:
        now = time.monotonic()
        for node in self._linked():
            while (message := node.received.next()) is not None:
                self._take_message(node, message)
            node.turn(now, self._channel.status)
            if node.is_silent():
                self._lose(node)
        if now >= self._next_usage:
            self._next_usage = now + _USAGE_S
            usages = (usage for node in self._linked() for usage in node.usages.values())
            self._plane.send(Usages(tuple(usages)))

    def _take_message(self, node: Node, message: ToHead) -> None:
        match message:
            case FromRank(data=data):
                said = decode_to_engine(data)
                node.n_ready += isinstance(said, Ready)
                self._plane.send(said)
            case Dying(rank=rank):
                self._note_death(rank)
            case Ended(rank=rank):
                self._note_death(rank)
                node.end_rank(message)
            case Failed(why=why):
                self._fail_start(node, f"node {node.number} ({node.host}): {why}")
            case Bye():
                node.has_said_bye = True

    def _note_death(self, rank: int) -> None:
        """Ends all waits, if the run goes on: on one machine the kernel would do it."""
        if not self._rings_ended:
            self._channel.poison(rank)
            with contextlib.suppress(OSError):
                os.eventfd_write(self._start.deaths.fd, 1)

    def _lose(self, node: Node) -> None:
        node.is_linked = False
        if node.left:
            node.end_all(
                f"{node.host} has been silent for {self._start.node_timeout_s:g} s "
                "(MPSPMD_NODE_TIMEOUT_S)",
                gone=True,
            )
            self._note_death(node.ranks[0])

    def _linked(self) -> list[Node]:
        return [node for node in self._nodes if node.is_linked]

    def _is_over(self) -> bool:
        """Whether there is nothing left to do. Says goodbye when all ranks have ended."""
        if not self._rings_ended or any(node.left for node in self._nodes):
            return False
        if self._over_by is None:
            self._over_by = time.monotonic() + _BYE_S
            for node in self._linked():
                node.messages.put(Bye())
        return all(node.is_done for node in self._nodes) or time.monotonic() > self._over_by
