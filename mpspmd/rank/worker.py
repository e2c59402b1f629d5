"""Worker and RankContext: what a user's code on a rank builds on."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from mpspmd.errors import SegmentError
from mpspmd.machine.network import NO_LOOPBACK, interface_towards, loopback, numeric

if TYPE_CHECKING:
    import torch

    from mpspmd._ring import Track

LATER: Final = object()
"""A method returns it if it has no reply: a later call of its step has one. See StepCalls.send."""


class _Collective:
    """Notes in the recorder how long its body takes."""

    def __init__(self, track: Track) -> None:
        self._track = track

    def __enter__(self) -> None:
        self._track.enter_collective()

    def __exit__(self, *error: object) -> None:
        self._track.exit_collective()


@dataclass
class RankContext:
    """Who this rank is. The first argument of the worker's constructor.

    The numbers begin at 0. They mean what torchrun's RANK, LOCAL_RANK, WORLD_SIZE, GROUP_RANK and
    GROUP_WORLD_SIZE mean.
    """

    rank: int
    """This rank's number among all ranks of the run."""
    local_rank: int
    """This rank's number among the ranks of its machine; in a run on one machine the same as `rank`."""
    world_size: int
    """How many ranks the run has."""
    node_rank: int
    """The number of this rank's machine; in a run on one machine 0."""
    num_nodes: int
    """How many machines the run has."""
    run_dir: str
    """A folder that only this run's processes use; it is removed with the run."""
    remove_at_end: Callable[[str], None] = field(repr=False)
    """Takes the absolute path of a file or folder that this run makes in the temp folder, in /dev/shm or in
    `run_dir`; it is removed when the last of the run's processes is gone. Any other place is a ConfigError;
    `*` and `?` have no special meaning."""
    meeting_place: str = field(default="", repr=False)
    """Where the ranks of several machines meet, as torch's `init_method`; "" on one machine."""
    _digest: Any = field(default=None, repr=False)
    _track: Track | None = field(default=None, repr=False)

    @property
    def device(self) -> torch.device:
        """The CUDA device of this local rank where there is one, else the CPU."""
        import torch

        if torch.cuda.is_available() and self.local_rank < torch.cuda.device_count():
            return torch.device("cuda", self.local_rank)
        return torch.device("cpu")

    def init_process_group(self, backend: str | None = None) -> None:
        """Joins all ranks in torch.distributed's default group: NCCL on CUDA, gloo on the CPU.

        Every rank must call it; it returns when all have. On one machine they meet through a file in the
        run's folder, so that no port is needed, and gloo uses the loopback interface unless
        GLOO_SOCKET_IFNAME names another: no name service is asked. The ranks of several machines meet at a
        port of the head, and gloo uses the interface through which this machine reaches the head.

        Raises:
            SegmentError: The loopback interface is down.
        """
        import torch.distributed as dist

        if "GLOO_SOCKET_IFNAME" not in os.environ:
            if self.meeting_place:
                interface = interface_towards(self.meeting_place)
            elif loopback() is None:
                raise SegmentError(NO_LOOPBACK)
            else:
                interface = "lo"
            if interface is not None:
                os.environ["GLOO_SOCKET_IFNAME"] = interface
        dist.init_process_group(
            backend or ("nccl" if self.device.type == "cuda" else "gloo"),
            init_method=self._init_method(),
            rank=self.rank,
            world_size=self.world_size,
        )

    def _init_method(self) -> str:
        if not self.meeting_place:
            return f"file://{self.run_dir}/process-group"
        # torchrun's agent, or mpspmd-launch's, serves a store: then torch lets no rank serve another one.
        agents = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        return "env://" if agents else numeric(self.meeting_place)

    def collective(self) -> AbstractContextManager[None]:
        """Says that the method waits for other ranks: `with ctx.collective(): dist.all_reduce(tensor)`.

        So `mpspmd-trace` and `mpspmd-top` can tell a rank that works from one that waits. It costs less
        than a microsecond. Call it in the rank's main thread; it may be nested.
        """
        return nullcontext() if self._track is None else _Collective(self._track)

    def request_digest(self) -> str | None:
        """A digest of all request bytes so far, those of the running request too: 32 hexadecimal digits.

        None unless `RuntimeConfig.digest_requests` is set.
        """
        return self._digest.hexdigest() if self._digest is not None else None


class Worker:
    """The base of a worker: one instance on every rank, made there, never in the engine.

        class Adder(mpspmd.Worker):
            def __init__(self, ctx, amount):
                super().__init__(ctx)
                self.amount = amount

            def execute_model(self, numbers):
                return [number + self.amount for number in numbers]

        with mpspmd.Engine(Adder, world_size=2, args=(10,)) as engine:
            print(engine.execute_model([1, 2]))  # [11, 12]

    Its methods are called by name, with the same arguments on every rank, in the rank's main thread and in
    the order in which the engine was called. A subclass's constructor takes the context, and the engine's
    `args` and `kwargs`. What a method raises reaches the engine's caller as RankError.
    """

    reply_thread: bool = False
    """True: a thread of its own finishes and sends the replies, in the order of the requests."""

    while_waiting: Callable[[], AbstractContextManager[None]] | None = None
    """Makes a context manager, in which the rank waits for a request; called for each wait."""

    def __init__(self, ctx: RankContext) -> None:
        self.ctx = ctx

    def execute_model(self, *args: Any, **kwargs: Any) -> Any:
        """One step: what `Engine.execute_model` calls. If it raises on any rank, the engine has failed."""
        raise NotImplementedError(f"{type(self).__qualname__} has no execute_model")

    def start_reply_thread(self) -> None:
        """Called in the reply thread, if there is one, before it finishes any reply."""

    def finish_reply(self, result: Any) -> Any:
        """Returns what is sent for a method's result. Called only on a rank that replies, in the reply
        thread if there is one."""
        return result

    def told_to_leave(self) -> None:
        """Called when the rank is told to end, also in another thread while the main one runs a method."""

    def shutdown(self) -> None:
        """Called once, in the main thread, when the engine shuts down or the rank is told to end."""
