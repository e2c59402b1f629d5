"""The scenarios of PyTorch's own tests of torchrun (test/distributed/launcher/test_run.py and its
neighbours), with `mpspmd-launch --ranks-only`, and some of them with an engine.

Not here: what those tests do with a function in the place of a script, with mocks of the agent or with an
etcd server (these are PyTorch's API, not options); GPUs; `torch.distributed.launch`, another command.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from free_ports import free_port
from torch.distributed.run import config_from_args, determine_local_world_size, get_args_parser

from mpspmd.cli.launch.group import Group, number_of_ranks, plan
from mpspmd.cli.launch.options import make_parser
from mpspmd.cli.launch.output import Output
from mpspmd.cli.launch.process_setup import ProcessSetup

pytestmark = pytest.mark.timeout(180)

_HERE = Path(__file__).parent


def _planned(folder: Path, *arguments: str) -> Group:
    args = make_parser().parse_args([*arguments, "x.py", "--its", "own"])
    return plan(args, number_of_ranks(args), folder)


class TestEveryOption:
    """In this process: what each option becomes."""

    @pytest.mark.parametrize(
        "arguments",
        [
            ["--nnodes=1", "--nproc-per-node=4", "--rdzv-id=7", "--start-method=spawn",
             "--master-port=1"],
            ["--nnodes=1:2", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0",
             "--rdzv-conf=join_timeout=5,last_call_timeout=1,timeout=5", "--rdzv_id=7"],
            ["--nnodes=2:20", "--rdzv_backend", "c10d", "--local-addr", "10.0.0.1",
             "--rdzv_endpoint", "node0:1"],
            ["--master-addr=localhost", "--master-port=29511", "--node-rank=0", "--nnodes", "2"],
            ["--max-restarts=3", "--monitor-interval=1", "--role=trainer", "--local-addr", "node0",
             "--master-port", "1"],
            ["--event-log-handler=console", "--signals-to-handle=SIGUSR1,SIGTERM",
             "--shutdown-timeout=5", "--virtual-local-rank", "--master-port", "1"],
            ["--numa-binding=node", "--redirect=3", "-t", "0:1,1:2", "--local-ranks-filter=0,1",
             "--duplicate-stdout-filters=a,b,,c", "--duplicate_stderr_filters=d",
             "--master-port", "1"],
            ["--no-python", "--master-port", "1"],
            ["-m", "--master-port", "1"],
        ],
    )  # fmt: skip
    def test_is_given_to_the_agent_as_torchrun_gives_it(
        self, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OMP_NUM_THREADS", "1")  # or PyTorch sets it in this process
        torchruns = get_args_parser().parse_args(
            [*arguments, "--log-dir", str(tmp_path), "x.py", "--its", "own"]
        )
        config, program, its_arguments = config_from_args(torchruns)
        group = _planned(tmp_path, "--ranks-only", "--log-dir", str(tmp_path), *arguments)
        expected, ours = dict(vars(config)), dict(vars(group.config))
        assert ours["rdzv_configs"].pop("is_host", None) in (None, True)
        assert ours.pop("nproc_per_node") == 1  # of which there are:
        assert group.n_ranks == expected.pop("nproc_per_node")
        assert ours == expected
        assert group.command == (program, *its_arguments)

    @pytest.mark.parametrize("count", ["auto", "cpu", "3"])
    def test_ranks_are_counted_as_torchrun_counts_them(self, count: str, tmp_path: Path) -> None:
        group = _planned(tmp_path, "--ranks-only", "-n", count)
        assert group.n_ranks == determine_local_world_size(count)

    def test_can_be_a_variable_and_the_command_line_has_the_last_word(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, value in {
            "NPROC_PER_NODE": "4", "MONITOR_INTERVAL": "1", "MAX_RESTARTS": "2", "RANKS_ONLY": "1",
            "NO_PYTHON": "1", "MODULE": "0", "ROLE": "trainer", "MASTER_PORT": "1",
        }.items():  # fmt: skip
            monkeypatch.setenv(f"PET_{name}", value)
        group = _planned(tmp_path, "-n", "3", "--max_restarts", "1")
        assert (group.n_ranks, group.has_engine) == (3, False)
        assert (group.config.monitor_interval, group.config.max_restarts) == (1.0, 1)
        assert (group.config.role, group.command) == ("trainer", ("x.py", "--its", "own"))

    def test_a_new_option_of_a_later_pytorch_is_taken_and_shown(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        later = get_args_parser()
        later.add_argument("--from-the-future", "--from_the_future", default=1, type=int)
        monkeypatch.setattr("mpspmd.cli.launch.options.get_args_parser", lambda: later)
        parser = make_parser()
        assert parser.parse_args(["--from_the_future", "2", "x.py"]).from_the_future == 2
        _, _, other = parser.format_help().partition("More of torchrun's options:")
        assert "--from-the-future FROM_THE_FUTURE" in other

    def test_one_node_meets_nobody_unless_told_where(self, tmp_path: Path) -> None:
        backends = [
            _planned(tmp_path, "--ranks-only", *arguments).config.rdzv_backend
            for arguments in (
                [], ["--rdzv-id", "7"], ["--standalone", "--rdzv-endpoint", "a:1"],
                ["--master-port", "1"], ["--nnodes", "2"], ["--nnodes", "1:2"],
                ["--rdzv-endpoint", "a:1"], ["--rdzv-backend", "c10d"],
            )
        ]  # fmt: skip
        assert backends == ["one-node"] * 3 + ["static"] * 4 + ["c10d"]

    def test_the_engine_is_shown_though_ranks_are_filtered(self, tmp_path: Path) -> None:
        group = _planned(tmp_path, "-n", "2", "--local-ranks-filter", "1")
        assert vars(group.logs_specs)["_local_ranks_filter"] == {1, 2}


def _shown(out: str, prefix: str = "[rank") -> list[dict[str, Any]]:
    """What the ranks have printed, by rank."""
    lines = [line.partition("{") for line in out.splitlines() if line.startswith(prefix)]
    shown = [json.loads(begin + rest) for _, begin, rest in lines if begin]
    return sorted(shown, key=lambda each: int(each["RANK"]))


def test_ranks_get_torchruns_variables_and_their_output_goes_where_it_is_told(
    launch: Any, tmp_path: Path
) -> None:
    logs = tmp_path / "logs"
    code, out, err = launch(
        "--nnodes=1", "--nproc-per-node=3", "--rdzv-id=7", "--start-method=fork", "--standalone",
        "--role=trainer", "--virtual-local-rank", "--redirect=1:2", "--tee=0:3,2:3",
        "--local-ranks-filter=0,1", "--duplicate-stdout-filters=RANK,none", "--log-dir", str(logs),
        "--max-restarts=2", "--event-log-handler=console", "--shutdown-timeout=5", "--ranks-only",
        "show.py", "environment", "--${local_rank}",
        OUTSIDE="yes", CUDA_VISIBLE_DEVICES="4,5,6", PET_NPROC_PER_NODE="7",
        TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE="[${role_name} ${rank} ${local_rank}]: ",
    ).result()  # fmt: skip
    assert code == 0, err
    shown = _shown(out, "[trainer ")
    assert [each["RANK"] for each in shown] == ["0", "1"]  # 2 is filtered
    assert out.splitlines()[0].startswith(("[trainer 0 0]: {", "[trainer 1 1]: {"))
    for rank, each in enumerate(shown):
        assert each["arguments"] == [f"--{rank}"]
        assert (each["LOCAL_RANK"], each["CUDA_VISIBLE_DEVICES"]) == ("0", str(4 + rank))
        assert (each["ROLE_NAME"], each["ROLE_RANK"]) == ("trainer", str(rank))
        assert each["WORLD_SIZE"] == each["LOCAL_WORLD_SIZE"] == each["ROLE_WORLD_SIZE"] == "3"
        assert (each["TORCHELASTIC_RESTART_COUNT"], each["TORCHELASTIC_MAX_RESTARTS"]) == ("0", "2")
        assert each["TORCHELASTIC_SIGNALS_TO_HANDLE"] == "SIGTERM,SIGINT,SIGHUP,SIGQUIT"
        assert (each["GROUP_RANK"], each["OUTSIDE"]) == ("0", "yes")
        assert None not in each.values()
    assert "an error line of 0" in err
    assert "an error line of 1" not in err  # it is redirected
    (attempt,) = logs.glob("*/attempt_0")
    assert (attempt / "1" / "stderr.log").read_text() == "an error line of 1\n"
    assert not (attempt / "1" / "stdout.log").exists()
    assert json.loads((attempt / "2" / "stdout.log").read_text())["RANK"] == "2"
    selected = (attempt / "filtered_stdout.log").read_text()
    assert sorted(selected.splitlines()) == sorted(out.splitlines())


def test_a_script_by_its_path_fails_and_is_restarted_and_its_filtered_rank_is_told_of(
    launch: Any,
) -> None:
    launched = launch(
        "--run-path", "-n", "1", "--monitor-interval", "0.05", "--max-restarts=1", "--ranks-only",
        "--local-ranks-filter", "1", str(_HERE / "show.py"), "fail",
    )  # fmt: skip
    code, _, err = launched.result()
    assert code == 1
    assert err.count("mpspmd-launch: restart 1 of 1") == 1
    assert re.search(r"show.py failed: rank 0 \(pid \d+\): exit code 1\nTraceback", err)
    assert err.count("RuntimeError: failing, as told, on 0") == 1  # in the summary alone
    assert launched.leftovers() == []


def test_a_static_rendezvous_is_where_it_was_told(launch: Any) -> None:
    port = free_port()
    code, out, err = launch(
        "--nnodes=1", "--nproc-per-node=2", "--master-addr=localhost", f"--master-port={port}",
        "--node-rank=0", "--no-python", sys.executable, "show.py", "environment",
        PET_RANKS_ONLY="1",
    ).result()  # fmt: skip
    assert code == 0, err
    assert [each["MASTER_ADDR"] for each in _shown(out)] == ["localhost"] * 2
    assert [each["MASTER_PORT"] for each in _shown(out)] == [str(port)] * 2


def test_an_elastic_run_starts_with_the_nodes_that_are_there(launch: Any) -> None:
    port = free_port()
    code, out, err = launch(
        "--nnodes=1:2", "-n", "2", "--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}",
        "--rdzv_conf=join_timeout=30,last_call_timeout=1", "--rdzv-id=7", "--ranks-only",
        "--local-addr=127.0.0.1", "show.py", "environment",
    ).result()  # fmt: skip
    assert code == 0, err
    assert [each["WORLD_SIZE"] for each in _shown(out)] == ["2", "2"]
    assert {each["TORCHELASTIC_RUN_ID"] for each in _shown(out)} == {"7"}


def test_a_group_that_grows_is_started_again_without_counting_as_a_restart(tmp_path: Path) -> None:
    """The agent asks for destinations a second time, then."""
    output = Output(tmp_path)
    setup = ProcessSetup(_planned(tmp_path, "--ranks-only", "-n", "1"), tmp_path, output)
    paths = []
    for _ in range(2):
        env = {"RANK": "0", "ROLE_NAME": "default", "MASTER_ADDR": "127.0.0.1"}
        env |= {"TORCHELASTIC_RESTART_COUNT": "0", "TORCHELASTIC_MAX_RESTARTS": "0"}
        env["TORCHELASTIC_RUN_ID"] = "7"
        paths.append(setup.reify({0: env}).stdouts[0])
    output.close()
    assert len(set(paths)) == 2


def test_only_the_signals_that_are_named_are_handled_and_passed_on(
    launch: Any, tmp_path: Path, eventually: Any
) -> None:
    launched = launch(
        "-n", "2", "--ranks-only", "--signals-to-handle=SIGUSR1,SIGNONE", "show.py", "checkpoint"
    )
    eventually((tmp_path / "ready-1").exists, "the ranks run", 60)
    eventually((tmp_path / "ready-0").exists, "the ranks run", 60)
    os.kill(launched.process.pid, signal.SIGUSR1)
    code, _, err = launched.result()
    assert (code, err) == (
        128 + signal.SIGUSR1, "mpspmd-launch: no process can handle a signal 'SIGNONE'\n",
    )  # fmt: skip
    assert sorted(path.name for path in tmp_path.glob("saved-*")) == ["saved-0", "saved-1"]


def test_ranks_that_ignore_a_signal_get_no_longer_than_they_are_given(
    launch: Any, tmp_path: Path, eventually: Any
) -> None:
    launched = launch("-n", "1", "--ranks-only", "--shutdown-timeout=1", "show.py", "stubborn")
    eventually((tmp_path / "ready-0").exists, "the rank runs", 60)
    os.kill(launched.process.pid, signal.SIGTERM)
    assert launched.result(100)[0] == 143
    assert launched.processes() == []
    assert launched.leftovers() == []


_SPECS = """
import os
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs

class Mine(DefaultLogsSpecs):
    def reify(self, envs):
        to = super().reify(envs)
        to.stderrs[0] = os.path.join(self.root_log_dir, "mine.log")
        return to
"""


def test_logs_go_where_another_packages_logs_specs_sends_them(launch: Any, tmp_path: Path) -> None:
    package = tmp_path / "site"
    (package / "mine-1.dist-info").mkdir(parents=True)
    (package / "mine.py").write_text(_SPECS)
    (package / "mine-1.dist-info" / "METADATA").write_text("Name: mine\nVersion: 1\n")
    (package / "mine-1.dist-info" / "entry_points.txt").write_text(
        "[torchrun.logs_specs]\nmine = mine:Mine\n"
    )
    paths = [str(package), *filter(None, [os.environ.get("PYTHONPATH")])]
    code, out, err = launch(
        "-n", "2", "--ranks-only", "--logs_specs=mine", "--log-dir", str(tmp_path / "logs"),
        "show.py", "environment", PYTHONPATH=os.pathsep.join(paths),
    ).result()  # fmt: skip
    assert (code, err) == (0, "[rank1] an error line of 1\n")
    assert len(_shown(out)) == 2
    assert (tmp_path / "logs" / "mine.log").read_text() == "an error line of 0\n"


def test_with_an_engine_the_same_options_do_the_same_for_the_ranks(
    launch: Any, tmp_path: Path
) -> None:
    logs = tmp_path / "logs"
    code, out, err = launch(
        "--run-path", "--standalone", "--nproc-per-node=2", "--role=trainer", "--redirects=1:2",
        "--local_ranks_filter=1", "--log-dir", str(logs), "--tee=2:1", "--start-method=spawn",
        "--duplicate-stdout-filters=hello", "--rdzv-conf=timeout=60", "--shutdown-timeout=20",
        "--signals-to-handle=SIGTERM", str(_HERE / "app.py"), "talks",
    ).result()  # fmt: skip
    assert code == 0, err
    assert sorted(out.splitlines()) == ["[engine] from the engine", "[rank1] hello 1"]
    assert err == ""
    (attempt,) = logs.glob("*/attempt_0")
    assert (attempt / "1" / "stderr.log").read_text() == "err hello 1\n"
    assert (attempt / "filtered_stdout.log").read_text() == "[rank1] hello 1\n"
