"""ProcessSetup: gives each process its part in the run, its variables and a place for its output."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import TextIO

from torch.distributed.elastic.multiprocessing import LogsDest, LogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from mpspmd.cli.command import tell
from mpspmd.cli.launch.bootstrap import WORLD_SIZES
from mpspmd.cli.launch.failure import ENGINE, Failure, read_error_file
from mpspmd.cli.launch.group import Group
from mpspmd.cli.launch.output import TAIL_LINES, Output, Selection, prefix_of
from mpspmd.machine.cgroup import MemoryKiller
from mpspmd.machine.cores import usable_cores
from mpspmd.processes import hash_seed
from mpspmd.processes.launch import Launch

_LastLines = Sequence[bytes] | Path
"""The last lines of stderr: in memory, or in a file that has all of it."""


@dataclass(frozen=True)
class _Stream:
    """stdout or stderr of all processes."""

    target: TextIO
    """The launcher's own stream."""
    files: dict[int, str]
    """The agent's table, by place: the file that the process writes to, or "" for the terminal."""
    tees: dict[int, str]
    """The agent's table, by place: a file that the agent copies to the terminal."""
    texts: list[str] | None
    """Lines with one of these in them are also appended to `selected_path`."""
    selected_path: str


class ProcessSetup(LogsSpecs):
    """The agent calls `reify` before each start of the group, to ask where the output goes.

    At that moment the processes' environments can still be changed, so this also gives each its part. The
    user's own LogsSpecs says which streams go into files; the others go into pipes of `Output`. A process's
    place is its index on this node: a rank's is its local rank, the engine's comes after the last rank's.
    """

    def __init__(self, group: Group, folder: Path, output: Output) -> None:
        super().__init__()
        self._group = group
        self._folder = folder
        self._output = output
        self._last_lines: dict[int, _LastLines] = {}
        self._memory_killer = MemoryKiller()
        self._parts: dict[int, Launch] = {}
        """What each process has been told, by its place. Empty in a run without an engine."""
        self.has_started = False

    @property
    def root_log_dir(self) -> str:
        return self._group.logs_specs.root_log_dir

    def reify(self, envs: dict[int, dict[str, str]]) -> LogsDest:
        to = self._group.logs_specs.reify(envs)
        self.has_started = True
        attempt, attempts = (
            int(envs[0][f"TORCHELASTIC_{name}"]) for name in ("RESTART_COUNT", "MAX_RESTARTS")
        )
        if attempt:
            tell(f"mpspmd-launch: restart {attempt} of {attempts}")
        config = self._group.config
        texts = config.duplicate_stdout_filters, config.duplicate_stderr_filters
        out = _Stream(sys.stdout, to.stdouts, to.tee_stdouts, texts[0], to.filtered_stdout)
        err = _Stream(sys.stderr, to.stderrs, to.tee_stderrs, texts[1], to.filtered_stderr)
        for place, env in envs.items():
            if self._group.has_engine:
                self._assign_part(place, env, attempt)
            self._direct(place, env, out)
            self._last_lines[place] = self._direct(place, env, err)
            self._set_variables(place, env)
        return to

    def failure(self, rank: int, failure: ProcessFailure) -> Failure:
        """How a process of the last start ended."""
        place = failure.local_rank
        part = self._parts.get(place)
        lines = self._last_lines.get(place, ())
        if isinstance(lines, Path):
            lines = lines.read_bytes().splitlines(keepends=True)[-TAIL_LINES:]
        return Failure(
            rank if part is None else part.rank,
            failure.pid,
            failure.exitcode,
            read_error_file(failure.error_file),
            list(lines),
            self._memory_killer.note(),
            called_run=part is None or part.is_rank or not part.untaken.exists(),
        )

    def _is_engine(self, place: int) -> bool:
        return self._group.has_engine and place == self._group.n_ranks

    def _assign_part(self, place: int, env: dict[str, str], attempt: int) -> None:
        n_ranks = self._group.n_ranks
        node, count = int(env["GROUP_RANK"]), int(env["GROUP_WORLD_SIZE"])
        self._parts[place] = launch = Launch(
            ENGINE if self._is_engine(place) else node * n_ranks + place,
            count * n_ranks,
            str(engine_socket(self._folder, attempt)),
            node_rank=node,
            num_nodes=count,
            head=env["MASTER_ADDR"],
            port=self._group.port,
        )
        if launch.is_rank:
            # The agent has counted the engine, or the follower, as one more rank.
            for variable in WORLD_SIZES:
                env[variable] = str(n_ranks if variable.startswith("LOCAL") else launch.world_size)
            env["RANK"] = env["ROLE_RANK"] = str(launch.rank)
        else:
            launch.untaken.touch()
        launch.put(env)

    def _set_variables(self, place: int, env: dict[str, str]) -> None:
        group = self._group
        env.update(group.env)
        env["TORCHELASTIC_SIGNALS_TO_HANDLE"] = group.config.signals_to_handle
        if not os.environ.get(hash_seed.VARIABLE):
            # From the run's id, which all nodes know, so that all ranks of all nodes hash alike.
            env.setdefault(hash_seed.VARIABLE, hash_seed.seed_of(env["TORCHELASTIC_RUN_ID"]))
        threads = max(1, usable_cores() // group.n_ranks)
        limited = threads < len(os.sched_getaffinity(0))
        if limited and not self._is_engine(place) and "OMP_NUM_THREADS" not in os.environ:
            # If each rank's threads used all cores, they would slow each other down, or use up a CPU quota
            # and be stopped until its next period.
            env.setdefault("OMP_NUM_THREADS", str(threads))
        if not env["MASTER_ADDR"]:
            # No loopback interface. Without these variables init_process_group() fails at once.
            for variable in ("MASTER_ADDR", "MASTER_PORT"):
                del env[variable]
                os.environ.pop(variable, None)
        elif env["MASTER_ADDR"] == "::1" and "GLOO_SOCKET_IFNAME" not in os.environ:
            env.setdefault("GLOO_SOCKET_IFNAME", "lo")  # or gloo would choose 127.0.0.1

    def _direct(self, place: int, env: dict[str, str], stream: _Stream) -> _LastLines:
        """Says in the agent's table where the process writes: to the terminal, a file or a pipe of ours."""
        file = stream.files[place]
        hidden = file == os.devnull  # by --local-ranks-filter
        teed = bool(file) and not hidden and stream.tees.get(place) == file
        if file and not hidden and not teed:
            return Path(file)
        if not file and self._is_engine(place):
            return ()  # the engine has the terminal itself, as if it had been started by hand
        # All else goes through a pipe: the ranks' lines to the terminal; hidden lines, because a summary
        # needs the last ones; and a file that the agent would copy to the terminal. Our thread writes both,
        # and the agent needn't poll the file.
        if teed:
            del stream.tees[place]
        colour = stream.target.isatty() and not os.getenv("NO_COLOR")
        selection = None
        if stream.texts and os.path.isdir(os.path.dirname(stream.selected_path)):
            texts = [os.fsencode(text) for text in stream.texts]
            selection = Selection(texts, stream.selected_path, self._prefix(place, env, False))
        stream.files[place], last_lines = self._output.open(
            self._prefix(place, env, colour),
            None if hidden else stream.target.fileno(),
            file if teed else None,
            selection,
        )
        return last_lines

    def _prefix(self, place: int, env: dict[str, str], colour: bool) -> bytes:
        template = self._group.config.log_line_prefix_template
        if template and not self._is_engine(place):
            values = {"role_name": env["ROLE_NAME"], "rank": env["RANK"], "local_rank": place}
            return os.fsencode(Template(template).safe_substitute(values))
        name = "engine" if self._is_engine(place) else f"rank{env['RANK']}"
        return prefix_of(name, place, colour=colour)


def engine_socket(folder: Path, attempt: int) -> Path:
    """The socket at which the engine of this attempt hands over to its ranks."""
    return folder / f"engine-{attempt}"
