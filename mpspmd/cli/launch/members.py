"""Members: what each process of a launched group is told and where its output goes."""

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

from mpspmd.cli.launch.failure import ENGINE, Failure, read_error_file
from mpspmd.cli.launch.member import WORLD_SIZES
from mpspmd.cli.launch.output import Output, Selection, prefix_of
from mpspmd.cli.launch.plan import Group
from mpspmd.cli.streams import tell
from mpspmd.machine.cores import usable_cores
from mpspmd.machine.memory_killer import MemoryKiller
from mpspmd.processes import hash_seed
from mpspmd.processes.launch import Launch

_LastLines = Sequence[bytes] | Path
"""Of stderr: in memory, or in a file."""


@dataclass(frozen=True)
class _Stream:
    """stdout or stderr of all processes: the agent's files for it by place, and ours for all of them."""

    target: TextIO
    files: dict[int, str]
    """Empty: the terminal."""
    tees: dict[int, str]
    texts: list[str] | None
    selected_path: str


class Members(LogsSpecs):
    """The agent asks it, before each start of the group, where output goes; that is also the moment at
    which it can tell every process its part.

    The LogsSpecs that the options name says which streams go into files. The others go into pipes of ours.
    """

    def __init__(self, group: Group, folder: Path, output: Output) -> None:
        super().__init__()
        self._group = group
        self._folder = folder
        self._output = output
        self._last_lines: dict[int, _LastLines] = {}
        self._memory_killer = MemoryKiller()
        self.have_started = False

    @property
    def root_log_dir(self) -> str:
        return self._group.logs_specs.root_log_dir

    def reify(self, envs: dict[int, dict[str, str]]) -> LogsDest:
        self.have_started = True
        destinations = self._group.logs_specs.reify(envs)
        attempt, attempts = (
            int(envs[0][f"TORCHELASTIC_{name}"]) for name in ("RESTART_COUNT", "MAX_RESTARTS")
        )
        if attempt:
            tell(f"mpspmd-launch: restart {attempt} of {attempts}")
        out, err = self._streams(destinations)
        for place, env in envs.items():
            self._direct(place, env, out)
            self._last_lines[place] = self._direct(place, env, err)
            self._tell(place, env, attempt)
        return destinations

    def _streams(self, to: LogsDest) -> tuple[_Stream, _Stream]:
        config = self._group.config
        texts = config.duplicate_stdout_filters, config.duplicate_stderr_filters
        return (
            _Stream(sys.stdout, to.stdouts, to.tee_stdouts, texts[0], to.filtered_stdout),
            _Stream(sys.stderr, to.stderrs, to.tee_stderrs, texts[1], to.filtered_stderr),
        )

    def failure(self, rank: int, failure: ProcessFailure) -> Failure:
        """All that is known of how a process has failed."""
        place = failure.local_rank
        lines = self._last_lines.get(place, ())
        if isinstance(lines, Path):
            lines = lines.read_bytes().splitlines(keepends=True)[-200:]
        return Failure(
            ENGINE if self._is_engine(place) else rank,
            failure.pid,
            failure.exitcode,
            read_error_file(failure.error_file),
            list(lines),
            self._memory_killer.note(),
        )

    def _is_engine(self, place: int) -> bool:
        return self._group.has_engine and place == self._group.n_ranks

    def _tell(self, place: int, env: dict[str, str], attempt: int) -> None:
        group = self._group
        env.update(group.env)
        env["TORCHELASTIC_SIGNALS_TO_HANDLE"] = group.config.signals_to_handle
        if group.has_engine:
            rank = ENGINE if self._is_engine(place) else place
            if rank != ENGINE:  # which will have none of a rank's variables
                for variable in WORLD_SIZES:
                    env[variable] = str(group.n_ranks)
            launch = Launch(rank, group.n_ranks, str(engine_socket(self._folder, attempt)))
            launch.put(env)
            launch.untaken.touch()
        if not os.environ.get(hash_seed.VARIABLE):
            # Of the run's id, which all nodes know: so all ranks of all nodes hash alike.
            env.setdefault(hash_seed.VARIABLE, hash_seed.seed_of(env["TORCHELASTIC_RUN_ID"]))
        threads = max(1, usable_cores() // group.n_ranks)
        limited = threads < len(os.sched_getaffinity(0))
        if limited and not self._is_engine(place) and "OMP_NUM_THREADS" not in os.environ:
            # Where each rank's threads use all cores, they get in each other's way, or use up a CPU quota
            # and are stopped until the next period.
            env.setdefault("OMP_NUM_THREADS", str(threads))
        if not env["MASTER_ADDR"]:
            # No loopback interface. Without these, init_process_group() says at once that they are missing.
            for variable in ("MASTER_ADDR", "MASTER_PORT"):
                del env[variable]
                os.environ.pop(variable, None)
        elif env["MASTER_ADDR"] == "::1" and "GLOO_SOCKET_IFNAME" not in os.environ:
            env.setdefault("GLOO_SOCKET_IFNAME", "lo")  # gloo's own choice is 127.0.0.1

    def _direct(self, place: int, env: dict[str, str], stream: _Stream) -> _LastLines:
        """Puts a pipe in the place of the terminal, and of a file where the terminal gets the same: then
        the output's thread writes both, and the agent needn't poll the file.
        """
        file = stream.files[place]
        hidden = file == os.devnull  # by --local-ranks-filter: the last lines are wanted still
        teed = bool(file) and not hidden and stream.tees.get(place) == file
        if teed:
            del stream.tees[place]
        elif file and not hidden:
            return Path(file)
        elif self._is_engine(place) and not hidden:
            return ()  # it has the terminal, as if it had been started by hand
        colour = stream.target.isatty() and not os.getenv("NO_COLOR")
        selection = None
        if stream.texts and os.path.isdir(os.path.dirname(stream.selected_path)):
            texts = [text.encode() for text in stream.texts]
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
            return Template(template).safe_substitute(values).encode()
        name = "engine" if self._is_engine(place) else f"rank{env['RANK']}"
        return prefix_of(name, place, colour=colour)


def engine_socket(folder: Path, attempt: int) -> Path:
    """Where the engine of this attempt hands over to its ranks."""
    return folder / f"engine-{attempt}"
