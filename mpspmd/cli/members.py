"""Members: what each process of a launched group is told and where its output goes."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, LogsDest, Std
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from mpspmd.cli.failure import ENGINE, Failure, read_error_file
from mpspmd.cli.member import WORLD_SIZES
from mpspmd.cli.output import Output, prefix_of
from mpspmd.cores import usable_cores
from mpspmd.runtime import hash_seed
from mpspmd.runtime.launch import Launch


@dataclass(frozen=True)
class Destinations:
    """Torch's options for output: one number for all (1 stdout, 2 stderr, 3 both), or `RANK:NUMBER,…`."""

    log_dir: str | None = None
    redirects: str = "0"
    tee: str = "0"


class Members(DefaultLogsSpecs):
    """The agent asks it, before each start of the group, where output goes; that is also the moment at
    which it can tell every process its part."""

    def __init__(
        self,
        n_ranks: int,
        has_engine: bool,
        env: Mapping[str, str],
        destinations: Destinations,
        folder: Path,
        output: Output,
    ) -> None:
        super().__init__(
            destinations.log_dir or str(folder / "logs"),
            Std.from_str(destinations.redirects),
            Std.from_str(destinations.tee),
        )
        self._n_ranks = n_ranks
        self._has_engine = has_engine
        self._env = env
        self._folder = folder
        self._output = output
        self._last_lines: dict[int, deque[bytes]] = {}
        self._stderr_files: dict[int, str] = {}

    def reify(self, envs: dict[int, dict[str, str]]) -> LogsDest:
        destinations = super().reify(envs)
        attempt, attempts = (
            int(envs[0][f"TORCHELASTIC_{name}"]) for name in ("RESTART_COUNT", "MAX_RESTARTS")
        )
        if attempt:
            print(f"mpspmd-launch: restart {attempt} of {attempts}", file=sys.stderr, flush=True)
        for place, env in envs.items():
            is_engine = self._has_engine and place == self._n_ranks
            name = "engine" if is_engine else f"rank{env['RANK']}"
            self._direct(destinations, place, f"{attempt}-{place}", name, is_engine)
            env.update(self._env)
            if not os.environ.get(hash_seed.VARIABLE):
                # Of the run's id, which all nodes know: so all ranks of all nodes hash alike.
                env.setdefault(hash_seed.VARIABLE, hash_seed.seed_of(env["TORCHELASTIC_RUN_ID"]))
            if self._has_engine:
                self._tell(env, ENGINE if is_engine else place, attempt)
            threads = max(1, usable_cores() // self._n_ranks)
            if (
                not is_engine
                and threads < len(os.sched_getaffinity(0))
                and "OMP_NUM_THREADS" not in os.environ
            ):
                # Where each rank's threads use all cores, they get in each other's way, or use up a
                # CPU quota and are stopped until the next period.
                env.setdefault("OMP_NUM_THREADS", str(threads))
        return destinations

    def failure(self, rank: int, failure: ProcessFailure) -> Failure:
        """All that is known of how a process has failed."""
        place = failure.local_rank
        is_engine = self._has_engine and place == self._n_ranks
        lines = list(self._last_lines.get(place, ()))
        if path := self._stderr_files.get(place):
            lines = Path(path).read_bytes().splitlines(keepends=True)[-200:]
        return Failure(
            ENGINE if is_engine else rank,
            failure.pid,
            failure.exitcode,
            read_error_file(failure.error_file),
            lines,
        )

    def _tell(self, env: dict[str, str], rank: int, attempt: int) -> None:
        if rank != ENGINE:  # which will have none of a rank's variables
            for variable in WORLD_SIZES:
                env[variable] = str(self._n_ranks)
        Launch(rank, self._n_ranks, str(engine_socket(self._folder, attempt))).put(env)

    def _direct(self, to: LogsDest, place: int, pipe: str, name: str, is_engine: bool) -> None:
        streams = (
            ("out", sys.stdout, to.stdouts, to.tee_stdouts),
            ("err", sys.stderr, to.stderrs, to.tee_stderrs),
        )
        self._last_lines.pop(place, None)
        for kind, target, files, tees in streams:
            # Into a file as well: the output's thread does that, and the agent needn't poll the file.
            copy_to = tees.pop(place, None)
            if files[place] and not copy_to:
                if kind == "err":
                    self._stderr_files[place] = files[place]
                continue
            if is_engine and not copy_to:
                continue  # it has the terminal, as if it had been started by hand
            prefix = prefix_of(name, place, colour=target.isatty() and not os.getenv("NO_COLOR"))
            files[place], last_lines = self._output.open(
                f"{pipe}-{kind}", prefix, target.buffer, copy_to
            )
            if kind == "err":
                self._last_lines[place] = last_lines


def engine_socket(folder: Path, attempt: int) -> Path:
    """Where the engine of this attempt hands over to its ranks."""
    return folder / f"engine-{attempt}"
