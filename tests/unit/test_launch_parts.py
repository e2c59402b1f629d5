"""The parts of the launcher and of launched runs, each by itself; and who is to blame."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from mpspmd.cli.launch.failure import ENGINE, Failure, first_failure, summary
from mpspmd.cli.launch.main import launch
from mpspmd.cli.launch.options import parse
from mpspmd.cli.launch.output import Output, prefix_of
from mpspmd.cli.launch.signals import Stopped, stopping_at_signals
from mpspmd.processes.exit_status import PENDING

pytestmark = pytest.mark.timeout(60)


class TestOptions:
    @pytest.mark.parametrize(
        ("arguments", "wrong", "allowed"),
        [
            (["-n", "0", "x.py"], "'0'", "a number from 1 on, auto, gpu or cpu"),
            (["--nproc-per-node", "many", "x.py"], "'many'", "a number from 1 on"),
            (["--nnodes", "3:2", "--ranks-only", "x.py"], "'3:2'", "MIN:MAX"),
            (["--nnodes", "2:20:30", "--ranks-only", "x.py"], "'2:20:30'", "MIN:MAX"),
            (["--virtual-local-rank", "x.py"], "--virtual-local-rank", "needs --ranks-only"),
            (["--numa-binding", "node", "x.py"], "--numa-binding", "needs --ranks-only"),
            (["--max-restarts", "-1", "x.py"], "--max-restarts -1", "from 0 on"),
            (["--monitor-interval", "0", "x.py"], "--monitor-interval 0", "above 0"),
            (["--monitor-interval", "inf", "x.py"], "--monitor-interval inf", "up to 86400"),
            (["--event-log-handler", "nobody", "x.py"], "--event-log-handler 'nobody'", "null"),
            (["--monitor-interval", "soon", "x.py"], "--monitor-interval", "invalid float value"),
            (["--start-method", "thread", "x.py"], "'thread'", "'forkserver'"),
            (["--tee", "4", "x.py"], "'4'", "3 (both)"),
            (["--redirects", "0:1,1", "x.py"], "'0:1,1'", "RANK:NUMBER"),
            (["--local-ranks-filter", "0,x", "x.py"], "--local_ranks_filter", "list of integers"),
            (["--shutdown-timeout", "-1", "x.py"], "-1", "non-negative"),
            (["--logs-specs", "none-such", "x.py"], "none-such", "entrypoint"),
            (["--log-dir", "/dev/full/x", "x.py"], "/dev/full/x", "Not a directory"),
            (["--rdzv-conf", "x", "x.py"], "'x'", "must have a value"),
            (["--rdzv-endpoint", "node0:x", "x.py"], "node0:x", "port"),
            (["--env", "=x", "x.py"], "'=x'", "NAME=VALUE"),
            (["-m", "--no-python", "x"], "'--no-python'", "'--module'"),
            (["--nprok", "2", "x.py"], "unrecognized arguments", "--nprok"),
            (["-n", "2"], "SCRIPT", "required"),
        ],
    )  # fmt: skip
    def test_a_bad_one_is_one_line_with_what_is_allowed(
        self, arguments: list[str], wrong: str, allowed: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as ended:
            launch(arguments)
        assert ended.value.code == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("mpspmd-launch: ")
        assert err.count("\n") == 1
        assert wrong in err
        assert allowed in err

    @pytest.mark.parametrize(
        ("options", "variable", "place"),
        [
            ([], "", ("2", 1, "head")),
            (["--master-port", "1"], "", ("2", 1, "head")),
            (["--nnodes", "1"], "", ("1", 0, None)),
            (["--node-rank", "3"], "", ("1:1", 3, None)),
            (["--standalone"], "", ("1:1", 0, None)),
            (["--rdzv-backend", "c10d"], "", ("1:1", 0, None)),
            ([], "PET_NNODES", ("1", 0, None)),
        ],
    )
    def test_a_scheduler_says_where_the_node_is_unless_the_user_does(
        self,
        options: list[str],
        variable: str,
        place: tuple[str, int, str | None],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("LWS_GROUP_SIZE", "2")
        monkeypatch.setenv("LWS_WORKER_INDEX", "1")
        monkeypatch.setenv("LWS_LEADER_ADDRESS", "head")
        if variable:
            monkeypatch.setenv(variable, "1")
        args = parse([*options, "x.py"])
        none = parse(["--nnodes", "1", "x.py"]).master_addr
        assert (args.nnodes, args.node_rank) == place[:2]
        assert args.master_addr == (place[2] or none)

    def test_a_schedulers_variable_that_cannot_be_right_is_one_line(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("SLURM_NNODES", "2")
        monkeypatch.setenv("SLURM_NODEID", "1")
        monkeypatch.setenv("SLURM_JOB_NODELIST", "a,b")
        monkeypatch.setenv("SLURM_NTASKS", "16")
        with pytest.raises(SystemExit, match="2"):
            parse(["-n", "8", "x.py"])
        err = capsys.readouterr().err
        assert "SLURM_NTASKS=16 on 2 nodes" in err
        assert err.count("\n") == 1

    def test_a_variable_that_cannot_be_read_is_one_line(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("PET_STANDALONE", "yes")
        with pytest.raises(SystemExit) as ended:
            launch(["x.py"])
        assert ended.value.code == 2
        assert re.fullmatch(r"mpspmd-launch: .*PET_.*'yes'.*\n", capsys.readouterr().err)

    def test_help_has_every_option_of_torchrun_once_and_by_topic(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        from torch.distributed.run import get_args_parser

        with pytest.raises(SystemExit) as ended:
            launch(["--help"])
        assert ended.value.code == 0
        text = capsys.readouterr().out
        options = text[text.index("\nProcesses:") : text.index("\nExamples")]
        for action in get_args_parser()._actions:
            for name in action.option_strings:
                lines = re.findall(rf"^  (?:-.*, )?{name}(?:[ ,].*)?$", options, re.MULTILINE)
                assert len(lines) == ("_" not in name), name
        assert "\nMore than one node:\n" in text
        assert "mpspmd-launch -n 2 examples/hello.py" in text

    def test_without_arguments_there_is_help(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert launch([]) == 2
        assert "--nproc-per-node" in capsys.readouterr().err


class TestOutput:
    def _printed(
        self, folder: Path, *writes: bytes, copy_to: str | None = None
    ) -> tuple[list[bytes], list[bytes]]:
        printed = folder / "printed"
        output = Output(folder)
        with printed.open("wb") as target:
            path, last_lines = output.open(
                prefix_of("rank3", 3, colour=False), target.fileno(), copy_to
            )
            with open(path, "wb", buffering=0) as pipe:
                for data in writes:
                    pipe.write(data)
            output.close()
        return printed.read_bytes().splitlines(keepends=True), list(last_lines)

    def test_each_line_has_its_rank_however_it_is_written(self, tmp_path: Path) -> None:
        printed, _ = self._printed(tmp_path, b"one\ntw", b"o\nthree")
        assert printed == [b"[rank3] one\n", b"[rank3] two\n", b"[rank3] three\n"]

    def test_a_progress_bar_moves(self, tmp_path: Path) -> None:
        printed, _ = self._printed(tmp_path, b"10%\r", b"20%\r\n", b"end\n")
        assert b"".join(printed) == b"[rank3] 10%\r[rank3] 20%\r\n[rank3] end\n"

    def test_long_lines_and_many_are_complete(self, tmp_path: Path) -> None:
        lines = [b"%d " % number + b"x" * 7000 + b"\n" for number in range(300)]
        printed, last_lines = self._printed(tmp_path, *lines)
        assert printed == [b"[rank3] " + line for line in lines]
        assert last_lines == lines[-200:]

    def test_a_closed_terminal_stops_nobody(self, tmp_path: Path) -> None:
        read, write = os.pipe()
        os.close(read)
        output = Output(tmp_path)
        path, last_lines = output.open(b"", write)
        Path(path).write_bytes(b"nobody reads this\n")
        output.close()
        os.close(write)
        assert list(last_lines) == [b"nobody reads this\n"]

    def test_a_full_disk_under_a_copy_stops_nobody_and_is_told_once(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        lines = [b"%d\n" % number for number in range(20_000)]  # more than a pipe holds
        printed, _ = self._printed(tmp_path, *lines, copy_to="/dev/full")
        assert printed == [b"[rank3] " + line for line in lines]
        assert capfd.readouterr().err == (
            "mpspmd-launch: /dev/full: No space left on device; it gets no more of the output\n"
        )


class TestBlame:
    def _failure(self, number: int, exit_code: int, **error: object) -> dict[int, Failure]:
        return {number: Failure(number, 1000 + number, exit_code, error)}

    def test_a_rank_whose_death_the_engine_reports_comes_before_the_engine(self) -> None:
        failures = self._failure(ENGINE, 1, rank=1, died=True) | self._failure(1, -9)
        assert first_failure(failures).rank == 1

    def test_how_a_rank_ended_is_told_though_the_engine_could_not_know_it_yet(self) -> None:
        died = f"RankDied: rank 1 (pid 1001) died in step (step 4): {PENDING}"
        failures = self._failure(ENGINE, 1, rank=1, died=True, message={"message": died})
        assert summary("x.py", failures | self._failure(1, -9)) == (
            "mpspmd-launch: x.py failed: rank 1 (pid 1001): killed by SIGKILL\n"
            "RankDied: rank 1 (pid 1001) died in step (step 4): killed by SIGKILL\n"
            "then the engine: exit code 1"
        )

    def test_an_engine_that_died_comes_before_the_ranks_that_left_with_it(self) -> None:
        failures = self._failure(0, 1) | self._failure(1, 1) | self._failure(ENGINE, -11)
        assert first_failure(failures).rank == ENGINE

    def test_who_was_stopped_is_not_to_blame(self) -> None:
        failures = self._failure(0, -15) | self._failure(1, 7) | self._failure(ENGINE, 143)
        assert first_failure(failures).rank == 1
        assert first_failure(failures).status == 7
        text = summary("x.py", failures)
        assert text == "mpspmd-launch: x.py failed: rank 1 (pid 1001): exit code 7"

    @pytest.mark.parametrize("ended", [-15, -9])
    def test_a_rank_that_was_stopped_after_it_had_raised_is_to_blame(self, ended: int) -> None:
        failures = self._failure(0, -15) | self._failure(ENGINE, 1, message="StartupError")
        failures |= self._failure(1, ended, message="no weights")
        assert first_failure(failures).rank == 1
        assert first_failure(failures).status == 1
        assert "rank 1 (pid 1001): raised, and was stopped\nno weights" in summary("x", failures)

    def test_a_signal_is_named_and_becomes_a_shells_exit_code(self) -> None:
        (failure,) = self._failure(0, -6).values()
        assert (failure.reason, failure.status) == ("killed by SIGABRT", 134)

    @pytest.mark.parametrize(("ended", "hints"), [(0, 1), (1, 1), (-9, 0)])
    def test_an_engine_that_was_killed_is_not_said_to_be_none(self, ended: int, hints: int) -> None:
        failure = Failure(ENGINE, 1000, ended, {}, called_run=False)
        text = summary("x.py", {ENGINE: failure})
        assert text.count("x.py has not called mpspmd.run()") == hints

    def test_the_traceback_is_the_last_one_of_stderr(self) -> None:
        stderr = [b"Traceback (most recent call last):\n", b"  first\n", b"handled\n",
                  b"Traceback (most recent call last):\n", b"  second\n", b"ValueError: x\n"]  # fmt: skip
        failure = Failure(0, 1, 1, {}, stderr)
        assert failure.traceback == ("Traceback (most recent call last):\n  second\nValueError: x")


def test_a_signal_that_leaves_the_agent_as_another_error_is_a_signal_still() -> None:
    """As in torch's `metrics.prof`, when it comes before what the `finally` needs is assigned."""

    def interrupted() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
            began = 0.0
        finally:
            print(began)

    with pytest.raises(Stopped) as caught, stopping_at_signals([signal.SIGINT], has_engine=False):
        interrupted()
    assert caught.value.number == signal.SIGINT


def test_an_error_without_a_signal_stays_what_it_is() -> None:
    with pytest.raises(ZeroDivisionError), stopping_at_signals([signal.SIGINT], has_engine=False):
        _ = 1 // 0
