"""Remote: the ranks on other nodes and the bridge to them, as the engine sees them."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import socket
import threading
import time
from functools import partial
from typing import Any

from mpspmd._ring import StatusLine, StatusPage
from mpspmd.bridge.keys import keys_from
from mpspmd.bridge.messages import (
    Ended,
    Failed,
    NodeGone,
    Signal,
    ToBridge,
    ToRank,
    decode_end,
)
from mpspmd.bridge.place import NodePlace
from mpspmd.bridge.process import serve_bridge
from mpspmd.bridge.sockets import listen
from mpspmd.bridge.start import BridgeStart
from mpspmd.config import RuntimeConfig
from mpspmd.control import messages as control
from mpspmd.control.messages import encode
from mpspmd.errors import text_of
from mpspmd.naming import HELD
from mpspmd.processes.child import start_child
from mpspmd.processes.death_pipe import DeathPipe
from mpspmd.processes.exit_status import PENDING
from mpspmd.processes.hash_seed import VARIABLE as HASH_SEED
from mpspmd.processes.hash_seed import new_seed
from mpspmd.processes.main_module import RANK_NAME
from mpspmd.processes.pidfd import wait_readable
from mpspmd.processes.process import Process, Usage
from mpspmd.processes.signals import signals_deferred, signals_of_engine
from mpspmd.transport.channel import ChannelSegments
from mpspmd.transport.descriptor import Descriptor, pipe_above_standard

_SHARED_SETTINGS = (
    "request_ring_bytes",
    "reply_ring_bytes",
    "shutdown_timeout_s",
    "node_timeout_s",
    "wait",
    "digest_requests",
    "step_deltas",
)
_END_BYTES = 1 << 16
_MAX_REASON = 4_000
"""In characters: the bridge takes a message of up to 64 KiB."""
_STARVED = 10
"""A bridge that isn't stopped may be silent so many times longer."""
_LAST_S = 2.0
"""How long the bridge may take to end when all ranks have ended."""


class RemoteProcess(Process):
    """A rank's process on another node. Any thread."""

    def __init__(
        self, rank: int, place: NodePlace, pipe: int, line: StatusLine, remote: Remote
    ) -> None:
        """The bridge writes into `pipe` how the process has ended, and closes it."""
        self._rank = rank
        self.node = place.node_of(rank)
        self._ranks_of_node = tuple(place.ranks_of(self.node))
        self._pipe = pipe
        self._line = line
        self._remote = remote
        self._end: Ended | NodeGone | None = None
        self._reading = threading.Lock()

    @property
    def pid(self) -> int:  # type: ignore[override]
        """0 until it is known."""
        if isinstance(self._end, Ended) and self._end.pid:
            return self._end.pid
        return self._line.snapshot()["pid"]

    @property
    def sentinel(self) -> int:
        return self._pipe

    @property
    def lost_with(self) -> tuple[int, ...]:  # type: ignore[override]
        return self._ranks_of_node if isinstance(self._end, NodeGone) else ()

    def is_alive(self) -> bool:
        if self._end is None:
            with self._reading:  # another thread may ask at the same time
                if self._end is None and wait_readable(self._pipe, 0.0):
                    data = os.read(self._pipe, _END_BYTES)
                    self._end = decode_end(data) if data else self._remote.end_of_bridge()
        return self._end is None

    def lose(self, reason: str) -> None:
        """The engine gives it up."""
        if self.is_alive():
            self._end = NodeGone(reason)

    def join(self, timeout_s: float) -> None:
        if self.is_alive():
            wait_readable(self._pipe, timeout_s)

    @property
    def exit_code(self) -> int | None:
        return self._end.code if not self.is_alive() and isinstance(self._end, Ended) else None

    def exit_reason(self) -> str:
        return PENDING if self.is_alive() or self._end is None else self._end.reason

    def usage(self) -> Usage | None:
        return self._remote.usages.get(self._rank, _UNKNOWN) if self.is_alive() else None

    def send_signal(self, number: int) -> None:
        if self.is_alive():
            self._remote.send(Signal(self._rank, number))

    def close(self) -> None:
        if self._pipe >= 0:
            self._end = self._end or NodeGone("the run is over")
            os.close(self._pipe)
            self._pipe = -1

    def close_copies(self) -> None:
        self.close()


_UNKNOWN = Usage("unknown", 0.0)


class Remote:
    """The ranks on other nodes. `start` and `close` once; the rest: any thread."""

    def __init__(self, place: NodePlace, config: RuntimeConfig, status: StatusPage) -> None:
        """Listens at the head's port. ConfigError, SegmentError."""
        self.place = place
        self._config = config
        self._status = status
        self._keys = keys_from(os.environ)
        self._listener = listen(place)
        self.hash_seed = os.environ.get(HASH_SEED) or new_seed()
        self.usages: dict[int, Usage] = {}
        self._bridge: Process | None = None
        self._engine_end, self._bridge_end = socket.socketpair(
            socket.AF_UNIX, socket.SOCK_SEQPACKET
        )
        self._engine_end.setblocking(False)
        self._death_pipe = DeathPipe()
        self._processes: list[RemoteProcess] = []
        self._heard = math.inf
        """When the bridge said something last; infinity before the first time."""

    def start(
        self,
        worker: bytes,
        step_codec: bytes,
        segments: ChannelSegments,
        run_dir: Any,
        deaths_fd: int,
    ) -> list[RemoteProcess]:
        """Starts the bridge, and returns the processes of the ranks on other nodes, in rank order."""
        place = self.place
        ends: dict[int, Descriptor] = {}
        for rank in range(place.local_world_size, place.world_size):
            read, write = pipe_above_standard()
            ends[rank] = Descriptor(write)
            line = self._status.line(rank)
            self._processes.append(RemoteProcess(rank, place, read, line, self))
        commands = Descriptor(self._bridge_end.detach())
        deaths = Descriptor(os.dup(deaths_fd))
        start = BridgeStart(
            place=place,
            keys=self._keys,
            segments=segments,
            run_dir=run_dir,
            listener=self._listener,
            commands=commands,
            ends=ends,
            deaths=deaths,
            death_pipe=self._death_pipe,
            settings={name: getattr(self._config, name) for name in _SHARED_SETTINGS},
            node_timeout_s=self._config.node_timeout_s,
            worker=worker,
            step_codec=step_codec,
            hash_seed=self.hash_seed,
            signals_of_engine=signals_of_engine(),
        )
        try:
            with signals_deferred():
                name = f"{RANK_NAME}bridge"
                self._bridge = start_child(
                    partial(serve_bridge, start), name, start.signals_of_engine
                )
                self._death_pipe.arm(self._bridge)
        finally:
            for descriptor in (commands, deaths, self._listener, *ends.values()):
                descriptor.close()
        return self._processes

    def send(self, command: ToBridge) -> None:
        """Drops it if the bridge doesn't take any: then its ranks are lost anyway."""
        with contextlib.suppress(OSError):
            self._engine_end.send(encode(command))

    def note_exception(self, error: BaseException | None) -> None:
        """This exception ends the engine's program, so the other nodes' commands must fail. Call it before
        the rings are closed."""
        is_success = isinstance(error, SystemExit) and not error.code
        if error is not None and not is_success and not isinstance(error, GeneratorExit):
            what = f"{type(error).__name__}: {text_of(error)}".rstrip(": ")
            self.send(Failed(what[:_MAX_REASON]))

    def send_control(self, rank: int, message: control.ToRank) -> bool:
        """For a rank on another node; False if it is on this one."""
        if rank in self.place.ranks:
            return False
        self.send(ToRank(rank, encode(message)))
        return True

    def take(self, usages: control.Usages) -> None:
        """The bridge says twice a second what the ranks do, and so that it works itself."""
        self._heard = time.monotonic()
        self.usages = {rank: Usage(state, cpu_s) for rank, state, cpu_s in usages.usages}

    def check(self) -> bool:
        """Gives the ranks up if the bridge has said nothing for too long. True if it has just done so."""
        bridge, silence_s = self._bridge, time.monotonic() - self._heard
        limit_s = self._config.node_timeout_s
        if bridge is None or silence_s < limit_s:
            return False
        # On a machine with far too much work it may just wait for a core.
        usage = bridge.usage()
        if usage is not None and usage.state not in HELD and silence_s < _STARVED * limit_s:
            return False
        alive = [process for process in self._processes if process.is_alive()]
        for process in alive:
            process.lose(
                f"the bridge to it (pid {bridge.pid}) has said nothing for {silence_s:.1f} s"
            )
        return bool(alive)

    def end_of_bridge(self) -> NodeGone:
        """What has ended the ranks of which nothing else is known: the bridge has closed their pipes."""
        if self._bridge is None:
            return NodeGone("the bridge to it could not be started")
        self._bridge.join(0.05)
        return NodeGone(
            f"the bridge to it (pid {self._bridge.pid}) has ended: {self._bridge.exit_reason()}"
        )

    def close(self) -> None:
        """When the ranks have ended. Ends the bridge."""
        if self._bridge is not None:
            self._bridge.send_signal(signal.SIGCONT)
            self._bridge.join(_LAST_S)
            self._bridge.send_signal(signal.SIGKILL)
            self._bridge.join(_LAST_S)
            self._bridge.close()
        self._close_files()

    def close_copies(self) -> None:
        """In a process forked from the engine's."""
        if self._bridge is not None:
            self._bridge.close_copies()
        self._close_files()

    def _close_files(self) -> None:
        self._engine_end.close()
        self._bridge_end.close()
        self._listener.close()
        self._death_pipe.close()
        for process in self._processes:
            process.close()


def pickled(value: object) -> bytes:
    """By value what the main module defines, because other nodes may not have it."""
    import cloudpickle

    return bytes(cloudpickle.dumps(value))
