"""The channels of a run: a ring of requests from the engine to all ranks, a ring of replies from each."""

from __future__ import annotations

import enum
import errno
import os
from dataclasses import dataclass

from mpspmd import _ring
from mpspmd._ring import (
    MAX_READERS,
    Inbox,
    Liveness,
    Recorder,
    Ring,
    StatusPage,
    Tap,
    Track,
    Writer,
)
from mpspmd.config import RuntimeConfig
from mpspmd.errors import ConfigError, SegmentError
from mpspmd.machine.advice import advice
from mpspmd.machine.cores import usable_cores
from mpspmd.transport.descriptor import above_standard
from mpspmd.transport.segment import Segment, create_segments


class Poison(enum.IntEnum):
    """Why the rings of a run have been poisoned."""

    RANK_DIED = 1
    ENGINE_DIED = 2
    RANK_FAILED = 3


GRACE_S = 1.5
"""How long a rank may run on after the engine's death, to shut its worker down."""


@dataclass(frozen=True)
class ChannelSegments:
    """The shared memory of a run. Each rank's process gets it as an argument."""

    request: Segment
    replies: tuple[Segment, ...]
    status: Segment
    recorder: Segment | None
    """None: nothing is recorded."""
    wait: int
    """How all ends wait: one of the extension's WAIT_ constants."""

    @classmethod
    def create(cls, world_size: int, config: RuntimeConfig) -> ChannelSegments:
        """ConfigError for an impossible world size, SegmentError when memory is lacking."""
        if not 1 <= world_size <= MAX_READERS:
            raise ConfigError(f"world_size={world_size!r}: must be from 1 to {MAX_READERS}")
        n_steps = config.record_steps
        made = create_segments(cls._sizes(world_size, config))
        recorder = made.pop() if n_steps else None
        request, *replies, status = made
        wait = getattr(_ring, f"WAIT_{config.wait.upper()}")
        segments = cls(request, tuple(replies), status, recorder, wait)
        try:
            Ring.format(request.fd, config.request_ring_bytes, world_size)
            for segment in replies:
                Ring.format(segment.fd, config.reply_ring_bytes, 1)
            inode = os.fstat(request.fd).st_ino
            StatusPage.format(status.fd, world_size, inode, usable_cores())
            if recorder is not None:
                Recorder.format(recorder.fd, world_size + 1, n_steps, inode)
        except BaseException:
            segments.close()
            raise
        return segments

    @classmethod
    def bytes_for(cls, world_size: int, config: RuntimeConfig) -> int:
        """The bytes of shared memory that `create` would allocate."""
        return sum(cls._sizes(world_size, config))

    @staticmethod
    def _sizes(world_size: int, config: RuntimeConfig) -> list[int]:
        reply = Ring.segment_bytes(config.reply_ring_bytes, 1)
        sizes = [
            Ring.segment_bytes(config.request_ring_bytes, world_size),
            *[reply] * world_size,
            StatusPage.segment_bytes(world_size),
        ]
        if config.record_steps:
            sizes.append(Recorder.segment_bytes(world_size + 1, config.record_steps))
        return sizes

    def track(self, index: int) -> Track | None:
        """What a process records in: 0 for the engine, r + 1 for rank r; None when nothing is recorded."""
        return None if self.recorder is None else Recorder(self.recorder.fd).track(index)

    @property
    def records_at(self) -> int:
        """Where the recorder's records begin in its segment."""
        if self.recorder is None:
            return 0
        recorder = Recorder(self.recorder.fd)
        return self.recorder.size - 64 * recorder.n_tracks * recorder.n_steps

    @property
    def _all(self) -> list[Segment]:
        always = [self.request, *self.replies, self.status]
        return always if self.recorder is None else [*always, self.recorder]

    @property
    def size(self) -> int:
        """Bytes of shared memory, in all segments."""
        return sum(segment.size for segment in self._all)

    def close(self) -> None:
        for segment in self._all:
            segment.close()


class OwnersChannel:
    """What the owner of a node's ranks has of their channels: it writes requests and watches the ranks."""

    def __init__(self, segments: ChannelSegments) -> None:
        self.status = StatusPage(segments.status.fd)
        self.request_ring = Ring(segments.request.fd, space_bell=self.status)
        self.reply_rings = tuple(
            Ring(segment.fd, data_bell=self.status) for segment in segments.replies
        )
        self._rings = (self.request_ring, *self.reply_rings)
        self.track = segments.track(0)
        """What the engine records in; None when nothing is recorded."""
        self.requests = Writer(self.request_ring, wait=segments.wait, track=self.track)
        self.deaths_fd = -1
        """An eventfd that is readable when a rank has died. By then the rings are poisoned."""
        try:
            self.deaths_fd = above_standard(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC))
            self._liveness = Liveness.of_engine(
                self.status, self._rings, Poison.RANK_DIED, self.deaths_fd
            )
        except OSError as error:
            if self.deaths_fd >= 0:
                os.close(self.deaths_fd)
            raise SegmentError(f"ranks can't be watched: {error}; {_remedy(error)}") from error

    @property
    def first_to_die(self) -> int | None:
        """The rank whose death has poisoned the rings, which ends the other ranks' loops; or None."""
        _, code, rank = self.request_ring.state
        return rank if code == Poison.RANK_DIED else None

    def dead_ranks(self) -> list[int]:
        """The ranks whose death has been noticed; the first to die comes first."""
        first = self.first_to_die
        return sorted(self._liveness.dead, key=lambda rank: rank != first)

    def expect_deaths(self) -> None:
        """From now on the end of a rank doesn't poison the rings."""
        self._liveness.stop_watching()

    def release(self) -> None:
        """Call it when the ranks have ended: then nobody watches this process any more."""
        self._liveness.close()
        if self.deaths_fd >= 0:
            os.close(self.deaths_fd)
            self.deaths_fd = -1

    def close(self) -> None:
        """Closes all rings. A rank's loop ends when it has read what was sent, or when it replies."""
        for ring in self._rings:
            ring.close()

    def poison(self, code: int, rank: int) -> None:
        """Ends every wait on every ring, in all processes. `code`: a Poison; `rank`: to blame, or -1."""
        for ring in self._rings:
            ring.poison(code, rank)

    def mark_dead(self, rank: int) -> None:
        """Makes the writer stop waiting for this rank, whose process must have ended."""
        self.request_ring.mark_dead(rank)


class EngineChannel(OwnersChannel):
    """The engine's ends: it writes requests and reads all ranks' replies.

    Replies and space for requests ring one bell, in the status page, so that a wait for either ends when
    there is the other. `requests` and `replies` may each be used by one thread at a time.
    """

    def __init__(self, segments: ChannelSegments) -> None:
        super().__init__(segments)
        # With `auto`, an engine that has no core of its own stays awake: csrc/wait/README.md.
        wait = _ring.WAIT_AWAKE if segments.wait == _ring.WAIT_AUTO else segments.wait
        self.replies = Inbox(self.reply_rings, 0, page=self.status, wait=wait, track=self.track)


class FollowerChannel(OwnersChannel):
    """The ends on a node without an engine. Their bytes come from the head's rings, and go there."""

    def __init__(self, segments: ChannelSegments) -> None:
        super().__init__(segments)
        slots = (0,) * len(self.reply_rings)
        self.tap = Tap(self.reply_rings, slots, self.status, segments.wait)


class BridgeChannel:
    """The ends of the head's bridge: for each of the `remote` ranks it reads the requests and writes the
    replies, as if it were that rank."""

    def __init__(self, segments: ChannelSegments, remote: range) -> None:
        self.first_rank = remote[0]
        self.status = StatusPage(segments.status.fd)
        self.request_ring = Ring(segments.request.fd, space_bell=self.status)
        reply_rings = [Ring(segment.fd, data_bell=self.status) for segment in segments.replies]
        self._rings = (self.request_ring, *reply_rings)
        # In the place of the first remote rank it watches the engine, and is watched.
        self._liveness = Liveness.of_rank(
            self.status, self._rings, Poison.ENGINE_DIED, remote[0], GRACE_S
        )
        rings = (self.request_ring,) * len(remote)
        self.tap = Tap(rings, tuple(remote), self.status, segments.wait)
        self.replies = {rank: Writer(reply_rings[rank], wait=segments.wait) for rank in remote}

    def poison(self, rank: int) -> None:
        """A remote rank has died. Does nothing when the run has ended already."""
        if self.request_ring.state[0] == "open":
            for ring in self._rings:
                ring.poison(Poison.RANK_DIED, rank)


class RankChannel:
    """A rank's ends: it reads all requests and writes its own replies."""

    def __init__(self, segments: ChannelSegments, rank: int) -> None:
        status = StatusPage(segments.status.fd)
        self.line = status.line(rank)
        self.line.open()
        self._request_ring = requests = Ring(segments.request.fd, space_bell=status)
        replies = Ring(segments.replies[rank].fd, data_bell=status)
        self._liveness = Liveness.of_rank(
            status, (requests, replies), Poison.ENGINE_DIED, rank, GRACE_S
        )
        self.track = segments.track(rank + 1)
        """None when nothing is recorded."""
        self.line.record(self.track)
        self.requests = Inbox((requests,), rank, self.line, status, segments.wait, self.track)
        self.replies = Writer(replies, self.line, segments.wait, self.track)

    @property
    def has_ended(self) -> bool:
        """Whether the run is over: the engine has closed or poisoned the rings, or is dead."""
        return self._request_ring.state[0] != "open"


def _remedy(error: OSError) -> str:
    if error.errno in (errno.EPERM, errno.EACCES, errno.ENOSYS):
        return (
            "this container's seccomp profile, or its kernel, refuses the system call set_robust_list or "
            "eventfd2: allow both (docker run --security-opt seccomp=PROFILE)"
        )
    return advice(error.errno)
