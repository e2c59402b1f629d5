"""Replay: sends what a recording has, in the recorded order, and compares the replies.

A request was recorded before it was sent, and a reply when the engine had got it. So the order of the
records says how many requests were under way, and a replay waits for the replies that the engine had then.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from mpspmd.codec.objects import Pickler
from mpspmd.codec.steps import ReplyContext
from mpspmd.engine.call import Call
from mpspmd.errors import MpSpmdError, RankError
from mpspmd.recording.layout import Record, Type
from mpspmd.recording.reader import Contents, Recording
from mpspmd.replay.engine import ReplayEngine
from mpspmd.wire import ALL

_MOST_DIFFERENCES = 20
_SHOWN = 200
"""How many characters of a value are printed."""


@dataclass
class Times:
    """Of one method: seconds from each request to its last reply."""

    recorded_s: list[float] = field(default_factory=list)
    replayed_s: list[float] = field(default_factory=list)


@dataclass
class Result:
    requests: int = 0
    """How many were sent."""
    same: int = 0
    different: int = 0
    """Replies, each compared with the recorded one."""
    uncompared: int = 0
    """Replies of methods that measure, and replies that the recording doesn't have."""
    differences: list[str] = field(default_factory=list)
    """The first of them, in words."""
    times: dict[str, Times] = field(default_factory=dict)
    recorded_digest: str = ""
    replayed_digest: str = ""
    """Of all replies that were compared, after decoding."""
    requests_agree: bool | None = None
    """Whether each rank has the digest of what was sent; None: not known."""
    missing: int = 0
    """If it isn't 0, the recording begins in the middle: at this step."""
    error: BaseException | None = None
    """Why the replay has ended early."""

    @property
    def is_good(self) -> bool:
        """Whether all requests were sent, and all replies that can be compared are the recorded ones."""
        return self.error is None and not self.different and self.requests_agree is not False


@dataclass
class _Step:
    """A request under way."""

    request: Record
    asked: range
    """The ranks that reply."""
    call: Call
    context: ReplyContext | None
    """What the recorded replies are decoded with."""
    sent_at: float
    recorded: dict[int, Any] = field(default_factory=dict)
    """The recorded reply of each rank; a RankError if it had raised."""

    def lacks(self, rank: int) -> bool:
        return rank in self.asked and rank not in self.recorded


class Replay:
    """Call `run()` once."""

    def __init__(
        self,
        engine: ReplayEngine,
        recording: Recording,
        contents: Contents,
        *,
        timeout_s: float,
        measuring: Collection[str] = (),
    ) -> None:
        """`timeout_s`: for each request. `measuring`: methods whose replies differ in each run."""
        self._engine = engine
        self._recording = recording
        self._contents = contents
        self._timeout_s = timeout_s
        self._measuring = measuring
        self._under_way: dict[int, _Step] = {}
        self._digests = [hashlib.blake2b(digest_size=16) for _ in range(2)]
        self.result = Result()

    def run(self) -> Result:
        result = self.result
        try:
            self._send_all()
            # The last requests have no recorded reply, perhaps because one of them has killed a rank. When
            # the ranks have replied to this one, they are through with all others.
            result.requests_agree = self._engine.ranks_got_the_same(self._timeout_s)
            self._give_up(list(self._under_way))
        except MpSpmdError as error:
            result.error = error
        result.recorded_digest, result.replayed_digest = (
            digest.hexdigest() for digest in self._digests
        )
        return result

    def _send_all(self) -> None:
        records = self._recording.records()
        for number in range(self._contents.records):  # what follows is cut off or changed
            record = next(records)
            if record.type == Type.GAP:
                self.result.missing = record.step
            elif record.type == Type.REQUEST and number not in self._contents.unsent:
                self._send(record)
            elif record.type == Type.REPLY and record.step in self._under_way:
                self._take(self._under_way[record.step], record)

    def _send(self, record: Record) -> None:
        n_ranks, ranks = self._engine.world_size, record.reply_ranks
        if isinstance(ranks, int) and ranks >= n_ranks:  # a replay with fewer ranks
            ranks = None
        asked = range(0)
        if ranks == ALL:
            asked = range(n_ranks)
        elif ranks is not None:
            asked = range(ranks, ranks + 1)
        context = self._engine.follow(record)
        sent_at = time.perf_counter()
        call = self._engine.send(record, ranks, self._timeout_s)
        self.result.requests += 1
        if asked:
            self._under_way[record.step] = _Step(record, asked, call, context, sent_at)

    def _take(self, step: _Step, reply: Record) -> None:
        """Takes a recorded reply. In the recorded run the engine had it at this point."""
        if reply.rank in step.asked:
            step.recorded[reply.rank] = self._engine.decode_recorded(reply, step.context)
            # A rank replies in the order of the requests, so it won't reply to earlier ones any more: each
            # of them begins a step of vLLM, and the rank replies to the step's last request only.
            earlier = [number for number in self._under_way if number < reply.step]
            self._give_up([n for n in earlier if self._under_way[n].lacks(reply.rank)])
        if len(step.recorded) == len(step.asked):
            self._finish(reply.step, (reply.time_ns - step.request.time_ns) / 1e9)

    def _give_up(self, numbers: list[int]) -> None:
        """No reply to these was recorded, so none is waited for."""
        for number in numbers:
            step = self._under_way.pop(number)
            self.result.uncompared += step.call.done
            self._engine.steps.forget(step.call)

    def _finish(self, number: int, recorded_s: float) -> None:
        """Waits for the replies to a request, and compares them. MpSpmdError if the engine has failed."""
        step = self._under_way.pop(number)
        try:
            value = self._engine.steps.outcome(step.call)
            replies = value if step.request.reply_ranks == ALL else [value]
            found = dict(zip(step.asked, replies, strict=True))
        except RankError as error:
            found = {error.rank: error}
        times = self.result.times.setdefault(step.request.name, Times())
        times.replayed_s.append(time.perf_counter() - step.sent_at)
        times.recorded_s.append(recorded_s)
        for rank, reply in found.items():
            self._compare(step, rank, reply)
        if (failure := self._engine.failure) is not None and isinstance(failure, MpSpmdError):
            raise failure

    def _compare(self, step: _Step, rank: int, replayed: Any) -> None:
        result, request = self.result, step.request
        if rank not in step.recorded or request.name in self._measuring:
            result.uncompared += 1
            return
        recorded = step.recorded[rank]
        both = canonical(recorded), canonical(replayed)
        for digest, data in zip(self._digests, both, strict=True):
            digest.update(b"%d %d %d " % (request.step, rank, len(data)) + data)
        if both[0] == both[1]:
            result.same += 1
            return
        result.different += 1
        if len(result.differences) < _MOST_DIFFERENCES:
            result.differences.append(
                f"step {request.step}, {request.name}, rank {rank}: recorded {_shown(recorded)}, "
                f"replayed {_shown(replayed)}"
            )


def canonical(value: Any) -> bytes:
    """Bytes that are equal for equal replies, even if two equal parts are one object in only one of the
    replies. For an error they are made of its rank, class and message."""
    if isinstance(value, RankError):
        return repr((value.rank, value.exception, value.message)).encode()
    try:
        # Without the memo pickle writes an object that occurs twice in the same way as two equal objects.
        return _pickled(value, has_memo=False)
    except ValueError:  # a value that refers to itself needs the memo
        return _pickled(value, has_memo=True)


def _pickled(value: Any, *, has_memo: bool) -> bytes:
    stream = io.BytesIO()
    pickler = Pickler(stream, protocol=5)
    pickler.fast = not has_memo
    pickler.dump(value)
    return stream.getvalue()


def _shown(value: Any) -> str:
    text = f"{value.exception}: {value.message}" if isinstance(value, RankError) else repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
