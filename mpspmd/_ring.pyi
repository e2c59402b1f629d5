"""The ring, its waiting and the status page, in C. See csrc/README.md."""

from collections.abc import Callable
from threading import Lock
from typing import Any, Final, Literal, TypedDict

from typing_extensions import Buffer

MAX_READERS: int
WAIT_AUTO: int
WAIT_SPIN: int
WAIT_YIELD: int
WAIT_PARK: int
WAIT_AWAKE: int
KIND_REQUEST: int
KIND_REPLY: int
KIND_STEP: int
KIND_PACKED: int
PHASE_LOADING: int
PHASE_WAITING: int
PHASE_DECODING: int
PHASE_RUNNING: int
PHASE_REPLYING: int

def pack(value: object, /) -> bytes | None:
    """None, bool, int, float, str, bytes, and tuples, lists and dicts of these, as bytes.

    None for anything else: among it subclasses, a list or dict that is in there twice, and what is
    large (more than 255 items in one of them, 32 lists and dicts, or 1 MiB).
    """

def unpack(message: Buffer, /) -> Any:
    """The value that pack() made this of; NotImplemented if pack() hasn't. ValueError if it is damaged."""

class StatusPage:
    """A mapped status page. Any thread of any process."""

    def __init__(self, fd: int) -> None:
        """Read-only when `fd` is: what would write raises ValueError."""
    @staticmethod
    def format(fd: int, n_ranks: int, ring_inode: int, cores: int, /) -> None:
        """Writes the header into a new segment, with this process as the engine and its request ring.

        `cores` as for set_cores().
        """
    @staticmethod
    def segment_bytes(n_ranks: int) -> int: ...
    def line(self, rank: int) -> StatusLine: ...
    def sent(self, step: int, /) -> None:
        """The engine has sent a request. Its sending thread."""
    def set_cores(self, cores: int, /) -> None:
        """How many cores the processes of the run may use, 1 or more. From the next longer wait on, all
        waits of the run go by it."""
    def beat(self, pending: int, late: int, /) -> None:
        """The engine's supervisor runs. So many calls aren't done; so many replies have come too late."""
    @property
    def last_beat(self) -> tuple[float, int, int]:
        """When beat() was called last, in seconds of time.monotonic(), or 0.0; and its arguments."""
    @property
    def engine_pid(self) -> int: ...
    @property
    def ring_inode(self) -> int: ...
    @property
    def spinners(self) -> tuple[int, int]:
        """Threads of the run that poll for longer than 50 µs: how many do now, and how many may."""
    @property
    def n_ranks(self) -> int: ...
    @property
    def steps(self) -> int:
        """Requests sent."""

class WaitCounts(TypedDict):
    spins: int  # waits that ended while spinning,
    yields: int  # or while yielding
    parks: int  # sleeps
    early: int  # predicted waits that the bell ended before the predicted time,
    late: int  # or that found the message there when that time began
    mispredicted: int  # messages that came outside the predicted time

class LineSnapshot(WaitCounts):
    phase: str
    pid: int
    node: int  # the machine that `pid` is on; 0: the engine's
    step: int
    since: float  # seconds of time.monotonic()
    method: str
    requests: int
    replies: int
    bytes_in: int
    bytes_out: int
    idle_ns: int  # in phase waiting, without the wait that goes on
    has_died: bool  # the rank's process has ended without giving up its liveness word

class StatusLine:
    """One rank's line. Written by one thread of that rank, read by anybody."""

    def open(self) -> None:
        """Claims the line for this process: phase loading."""
    def enter(self, phase: int, step: int = ..., method: bytes = ..., /) -> None:
        """Begins a phase; `step` and `method` go together, and stay as they are when left out."""
    def record(self, track: Track | None, /) -> None:
        """From now on the changes of phase are recorded as well."""
    def replied(self) -> None: ...
    def snapshot(self) -> LineSnapshot: ...
    def copy(self) -> bytes:
        """The line for another machine, whose clock differs: it has the phase's age."""
    def paste(self, copy: Buffer, node: int, /) -> None:
        """Writes what copy() returned on another machine, number `node`. The line has no other writer.
        ValueError if the bytes are no such copy."""

class Recorder:
    """A mapping of a recorder's segment: what each process knows of the last steps. Any thread.

    Track 0 is the engine's, and track r + 1 is rank r's. mpspmd/observe/records.py has the layout.
    """

    def __init__(self, fd: int) -> None:
        """Read-only when `fd` is."""
    @staticmethod
    def format(fd: int, n_tracks: int, n_steps: int, ring_inode: int, /) -> None:
        """Writes the header into a new segment. `n_steps`: records of a track, a power of two."""
    @staticmethod
    def segment_bytes(n_tracks: int, n_steps: int, /) -> int: ...
    def track(self, index: int, /) -> Track: ...
    def copy(self) -> bytes:
        """The whole segment; each record is consistent, or has an odd sequence number."""
    def read(self, track: int, step: int, /) -> tuple[int, int, int, int, int, int, int] | None:
        """The words of one step's record; None if it isn't there (any more)."""
    @property
    def n_tracks(self) -> int: ...
    @property
    def n_steps(self) -> int: ...
    @property
    def ring_inode(self) -> int: ...

class Track:
    """What one process records. Given to a Writer, an Inbox and a StatusLine, which write into it."""

    def enter_collective(self) -> None:
        """The method that runs begins to wait for other ranks. Pairs may be nested."""
    def exit_collective(self) -> None: ...
    def pause(self, paused: bool, /) -> None:
        """From now on the process records nothing; or, with False, records again. So a benchmark can
        compare an engine with itself."""

class Liveness:
    """Lets the run's other processes notice when this one ends, and notices when one of them does.

    Threads of C hold and watch; they need neither the interpreter nor its lock. Any thread.
    """

    @classmethod
    def of_engine(
        cls, page: StatusPage, rings: tuple[Ring, ...], code: int, notice_fd: int, /
    ) -> Liveness:
        """Watches every rank: its death poisons `rings` with `code` and its rank, and adds 1 to
        `notice_fd`, an eventfd. OSError: EBUSY when the page has an engine already."""
    @classmethod
    def of_rank(
        cls, page: StatusPage, rings: tuple[Ring, ...], code: int, rank: int, grace_s: float, /
    ) -> Liveness:
        """Watches the engine: its death poisons `rings` with `code`, sends this process a SIGTERM soon
        after, if it has a handler for that, and ends it `grace_s` seconds later whatever it does. OSError:
        EBUSY when the rank is taken."""
    @property
    def dead(self) -> list[int]:
        """Those watched processes that have died: their ranks, or -1 for the engine."""
    def stop_watching(self) -> None:
        """From now on the others may end: nothing is poisoned any more."""
    def close(self) -> None:
        """Stops watching, and gives up this process's liveness words: nobody notices its end then."""

class Ring:
    """A mapping of a ring's segment. Any thread, but of no process that is forked later."""

    def __init__(
        self, fd: int, data_bell: StatusPage | None = None, space_bell: StatusPage | None = None
    ) -> None:
        """Every process must give the same bells: the ring's own by default."""
    @staticmethod
    def format(fd: int, capacity: int, n_readers: int) -> None: ...
    @staticmethod
    def segment_bytes(capacity: int, n_readers: int) -> int: ...
    @staticmethod
    def look(fd: int, /) -> tuple[int, int, tuple[int, ...], float]:
        """(capacity, tail, heads, published) of a ring in use by others; `fd` may be read-only. ValueError.

        `published`: when the last record was published, in seconds of time.monotonic()."""
    def close(self) -> None:
        """No more records; readers drain, then get ChannelClosed."""
    def poison(self, code: int, rank: int) -> None:
        """As close(), but readers get ChannelPoisoned. Beats close(), and the first poison stays."""
    def mark_dead(self, slot: int) -> None:
        """The writer stops waiting for this reader, whose process must be known to be gone."""
    @property
    def capacity(self) -> int: ...
    @property
    def n_readers(self) -> int: ...
    @property
    def tail(self) -> int: ...
    @property
    def heads(self) -> tuple[int, ...]: ...
    @property
    def state(self) -> tuple[str, int, int]:
        """("open" | "closed" | "poisoned", code, rank)"""

class Writer:
    """The writing end of a ring. One thread at a time, except `interrupt`; RuntimeError otherwise, and for
    a signal's handler while its thread waits here.
    """

    def __init__(
        self,
        ring: Ring,
        line: StatusLine | None = None,
        wait: int = WAIT_AUTO,
        track: Track | None = None,
    ) -> None:
        """With `line` its messages are counted and recorded as a rank's replies, else as requests.

        ChannelError while the ring has another writer, in whatever process: until that is freed. The
        ring of a process that was killed takes no writer any more.
        """
    def send(
        self,
        kind: int,
        tag: int,
        parts: Buffer | list[Buffer],
        timeout: float | None = None,
        /,
    ) -> None:
        """Sends a message, waiting for space. TimeoutError, ChannelClosed, ChannelPoisoned."""
    def try_send(self, kind: int, tag: int, parts: Buffer | list[Buffer], /) -> bool:
        """False when there is no space for all of it yet: wait() and resume(), or abandon()."""
    def send_packed(
        self, kind: int, tag: int, value: object, timeout: float | None = None, /
    ) -> bool:
        """As send() of pack(value), with KIND_PACKED in its kind: recv() gives the value itself.

        False, and nothing is sent, when pack() would return None.
        """
    def resume(self) -> bool: ...
    def append(self, data: Buffer, /) -> int:
        """Appends bytes of another ring of the same capacity, which lie there at `position`. Returns
        how many it
        has taken, which are fewer if there is no space. A record is there for readers as soon as it is
        whole. Not together with the other ways to send. ChannelClosed, ChannelPoisoned, ChannelCorrupt.
        """
    @property
    def position(self) -> int:
        """Where the next appended byte goes."""
    def abandon(self) -> None:
        """Gives up an unfinished message. The next message tells readers to drop its fragments."""
    def wait(self, inbox: Inbox | None = None, timeout: float | None = None) -> bool:
        """Until there is space, an interrupt, or something in `inbox`. False at the deadline."""
    def interrupt(self) -> None:
        """Ends the wait() of another thread, or the next one. Any thread."""
    @property
    def pending(self) -> bool: ...

class Tap:
    """Reads the bytes of rings that share a bell, by position, for rings on another machine. One thread
    at a time, except `interrupt`.
    """

    def __init__(
        self,
        rings: tuple[Ring, ...],
        slots: tuple[int, ...],
        page: StatusPage,
        wait: int = WAIT_AUTO,
    ) -> None:
        """Takes one reader's slot of each ring. The same ring may come more than once."""
    def wait(self, positions: tuple[int | None, ...], timeout: float | None, /) -> bool:
        """Until a ring has bytes beyond its position here or has ended, or an interrupt; False at the
        deadline. `None` leaves a ring out."""
    def read(self, index: int, position: int, limit: int, /) -> bytes:
        """Up to `limit` bytes from `position` on, whatever records they belong to. ValueError unless that
        lies between the reader's head and the tail."""
    def release(self, index: int, position: int, /) -> None:
        """Moves the reader's head there: the writer may reuse what lies before. ValueError as read()."""
    def interrupt(self) -> None:
        """Ends the wait() of another thread, or the next one. Any thread."""

class Block:
    """Memory of a message that its receiver may keep: writable bytes, aligned to 16. Any thread.

    When nobody uses a large one any more, its memory waits for the next one of about its size: up to
    256 MiB a process, which the kernel may take when it is short.
    """

    def __init__(self, data: Buffer, /) -> None:
        """A copy."""
    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

class Inbox:
    """The reading end of rings that share a bell. One thread at a time, except `interrupt`; RuntimeError
    otherwise, and for a signal's handler while its thread waits here.
    """

    def __init__(
        self,
        rings: tuple[Ring, ...],
        slot: int,
        line: StatusLine | None = None,
        page: StatusPage | None = None,
        wait: int = WAIT_AUTO,
        track: Track | None = None,
    ) -> None:
        """Counts its waits in `line`, and its spinning in `page`; `wait` is a WAIT_ strategy. With `line`
        its messages are recorded as requests, else as replies."""
    def recv(
        self, timeout: float | None = None, key: int = 0, /
    ) -> tuple[int, int, int, Any] | None:
        """The next message as (ring, kind, tag, payload), or None after an interrupt.

        `key` stands for what came before: waits with the same key are expected to take equally long.

        With KIND_PACKED in its kind the payload is the value that was packed; else it is bytes, a
        Block or a memoryview. So it is for a packed message that is damaged or came in fragments. A
        memoryview shows the record in the ring: release() it before the next recv(). Anything else is
        the caller's own.

        TimeoutError; ChannelClosed when all rings have been drained and closed; ChannelPoisoned;
        ChannelCorrupt.
        """
    def try_recv(self) -> tuple[int, int, int, Any] | None: ...
    def release(self) -> None:
        """Frees the record that the last recv() showed. BufferError while views of it are held."""
    def interrupt(self) -> None:
        """Ends the recv() of another thread, or the next one, with None. Any thread."""
    @property
    def wait_counts(self) -> WaitCounts: ...

def serve(
    *,
    requests: Inbox,
    replies: Writer | None,
    line: StatusLine,
    rank: int,
    worker: object,
    later: object,
    reply_class: type | None,
    receive: Callable[[float | None, int], tuple[int, int, int, Any] | None] | None,
    decodes_all: bool,
    decode: Callable[[int, int, Any], tuple[Any, ...] | None],
    fail: Callable[[int, Any, str, Any, BaseException], None],
    reply: Callable[[int, str, Any], None],
) -> None:
    """A rank's loop: takes a request, calls the worker's method, and replies if the rank is asked to; until
    `requests` is interrupted. A rank's main thread.

    A packed request and a packed reply need no Python code but the worker's method. For all else:

    * `receive` stands for `requests.recv`.
    * `decode(kind, step, payload)` makes (method, args, kwargs, reply_ranks) of any other request, and with
      `decodes_all` of packed ones too. A method that is no str is called with `args` alone, and its name
      follows as a fifth. None: it can't be decoded, which `decode` has told the engine.
    * `fail(step, method, name, reply_ranks, error)` tells the engine what the method has raised.
    * `reply(step, name, result)` sends a reply that isn't plain or is a `reply_class`; without `replies`
      any reply.

    A method that returns `later` has no reply. Whatever a callback raises, and a method's SystemExit, ends
    it; as do ChannelClosed, ChannelPoisoned and ChannelCorrupt.
    """

NO_REPLY: Final[object]
"""In the place of a reply that hasn't come."""

class Call:
    """A request whose replies are still coming. Written by the leader, or by the supervisor's thread."""

    step: Final[int]
    method: Final[str]
    ranks: Final[int | Literal["all"] | None]
    deadline: Final[float | None]
    """Of time.monotonic()."""
    began: Final[float]
    """Likewise."""
    key: Final[int]
    """Calls with the same key are expected to take equally long."""
    asked: Final[int]
    """How many ranks reply."""
    missing: int
    """How many of them haven't replied yet."""
    replies: Final[list[Any]]
    """One for each rank; NO_REPLY until it comes. In a call that fails, also the RankError of a rank."""
    done: bool
    error: BaseException | None
    kept_future: Any | None
    """The call's future, if it has callbacks: they are called although nobody has the future any more. A
    weak reference to it, if only threads that have it wait for it. Otherwise None: a call without an answer
    must not keep alive a future that nobody has, nor the engine."""
    later: list[Any] | None
    """Calls of the same step, which fail when this one does; see StepCalls.send."""
    closes: Any | None
    """The call that began the step, if this is the step's last."""
    reply_context: Any
    """What the step codec decodes the replies with."""
    errors: Final[list[tuple[int, Exception]] | None]
    """What ranks have raised in it so far, each with its rank."""
    keeps_late: bool
    """Whether replies that come after the call has failed are kept: see StepCalls.call."""

    def __new__(
        cls,
        step: int,
        method: str,
        ranks: int | Literal["all"] | None,
        n_ranks: int,
        deadline: float | None,
        bytes: int,
    ) -> Call:
        """`bytes`: of the request, or 0 if it is in several parts."""
    def outcome(self) -> Any:
        """All replies of a call that is done, in rank order, or the reply of the one rank. If it has an
        error, this calls `raise_error()`, a method of a class that derives from this one."""
    def note_error(self, rank: int, error: Exception, /) -> None:
        """Appends to `errors`. Any thread."""

class Exchange:
    """Which call waits for which step, and which thread reads the replies of all.

    Any thread. A class that derives from it has three methods, which are called for what isn't plain:
    `take(rank, kind, step, payload)` takes a message; the caller frees the message's space in the ring. If
    decoding it has raised an exception, that follows as a fifth argument.
    `finish(call)` ends a call whose last reply has come, and tells others. `hand_over()` wakes the threads
    that wait for their turn to read.
    """

    steps: int
    """The number of the last request."""
    leader: Final[int]
    """The identity of the thread that reads for all; 0: nobody reads."""
    sender: Final[int]
    """The identity of the thread that sends a request in another way than by send_plain(); 0: none does."""
    followers: Final[list[Lock]]
    """Of each thread that waits until it is its turn to read, what it waits for."""
    untold: Final[list[Any]]
    """Futures that are to be told that their calls have ended, or weak references to them. end() appends
    the call's `kept_future`."""
    sender_waits: bool
    """A thread that sends waits for space. It relies on the leader to take the ranks' replies."""
    note_reply: Callable[[int, int, int, Any], object] | None
    """Called before `take` with each message of a rank, with the same first four arguments. It may
    be called twice for a message, if it or a signal's handler raises. Set it before the first request."""

    def __init__(
        self,
        requests: Writer,
        replies: Inbox,
        page: StatusPage,
        pending: dict[int, Any],
        call_type: type[Call],
        decode_reply: Callable[[Any, int, int, Any, int], Any] | None = None,
    ) -> None:
        """`decode_reply(reply_context, step, rank, payload, n_asked)` returns what a reply of the step
        codec holds. If it raises, `take` gets the exception."""
    def send_plain(
        self,
        method: object,
        args: object,
        kwargs: object,
        reply_ranks: int | Literal["all"] | None,
        deadline: float | None,
        /,
    ) -> Any | None:
        """Sends a request that is a plain value, and returns its call. It is in `pending` if ranks reply.

        None, and nothing is sent: it isn't plain, or no name, tuple and dict; another thread is sending;
        there is no space for it; or the ring has ended."""
    def send_encoded(
        self,
        kind: int,
        message: object,
        method: str,
        reply_ranks: int | Literal["all"] | None,
        deadline: float | None,
        reply_context: object,
        /,
    ) -> Any | None:
        """As send_plain(), for a request that is encoded already. Only for the sender, see begin_sending().

        Returns None and sends nothing if `message` isn't bytes or is large, if there is no space for it, or
        if the ring has ended."""
    def read_for(self, call: Call, limit: float | None, tells: bool, /) -> bool:
        """Leads, and reads replies until the call is done: True. With `tells` it also returns True when
        there is a future in `untold`.

        False if another thread leads, at the call's deadline, or when it is `limit`, of time.monotonic().
        ChannelError."""
    def drain(self) -> None:
        """Only for the leader. Takes all replies that have come out of the rings, awaited or not."""
    def end(self, call: Call, error: BaseException | None, /) -> bool:
        """Ends a call that is in `pending`, and removes it there. Of several threads only one gets True."""
    def lead(self) -> bool:
        """Makes this thread the leader if there is none. Whether it leads and may read: a finalizer or a
        signal's handler in the leader's thread may not while a message comes or is decoded."""
    def stop_leading(self) -> None:
        """Only for the leader. Calls hand_over() if there are followers."""
    def begin_sending(self) -> bool:
        """Makes this thread the sender if there is none, and returns whether it did."""
    def end_sending(self) -> None:
        """There is no sender any more, if this thread was it. Nothing can come before that: a signal's
        handler may raise only when this has returned."""
