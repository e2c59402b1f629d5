"""mpspmd.run: one script that is an engine and its ranks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import workers

import mpspmd
import mpspmd.errors
from mpspmd.config import LAUNCH_VARIABLE
from mpspmd.errors import ConfigError
from mpspmd.processes.launch import Launch

pytestmark = pytest.mark.timeout(90)

_CLASS = """
class Worker(mpspmd.Worker):
    def execute_model(self, number):
        return number * 10 + self.ctx.rank

    def shutdown(self):
        sys.stdout.write(f"shut down {self.ctx.rank}\\n")  # at once: all share a pipe
        sys.stdout.flush()
"""


class Script:
    """A script in a folder of its own, started."""

    def __init__(self, folder: Path, text: str) -> None:
        self.path = folder / "app.py"
        self.path.write_text("import mpspmd, sys, time\n" + textwrap.dedent(text))
        self._folder = folder
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> subprocess.Popen[str]:
        self.process = subprocess.Popen(
            [sys.executable, str(self.path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"TMPDIR": str(self._folder)},
            start_new_session=True,
        )
        return self.process

    def result(self) -> tuple[int, list[str], str]:
        """Exit code, lines of stdout, stderr without what a slow start is noted with."""
        process = self.process or self.start()
        out, err = process.communicate(timeout=60)
        lines = err.splitlines(keepends=True)
        errors = [line for line in lines if not line.startswith("not all ranks are ready")]
        return process.returncode, out.splitlines(), "".join(errors)

    def leftovers(self) -> list[Path]:
        return list(self._folder.glob("mpspmd-*"))


@pytest.fixture
def script(tmp_path: Path) -> Any:
    scripts: list[Script] = []

    def make(text: str) -> Script:
        scripts.append(Script(tmp_path, text))
        return scripts[-1]

    yield make
    for made in scripts:
        if made.process is not None and made.process.poll() is None:
            os.killpg(made.process.pid, signal.SIGKILL)
            made.process.communicate()


def test_main_gets_the_engine_and_its_result_is_returned() -> None:
    def main(engine: mpspmd.Engine) -> list[Any]:
        return [engine.world_size, engine.collective_rpc("add", args=(1,))]

    result = mpspmd.run(workers.Calculator, main, world_size=2, args=(5,))
    assert result == [2, [6, 6]]


def test_without_a_world_size_there_is_one_rank_or_one_a_gpu() -> None:
    import torch

    ranks = mpspmd.run(workers.Calculator, lambda engine: engine.collective_rpc("rank"))
    assert ranks == list(range(max(1, torch.cuda.device_count())))


def test_what_main_raises_arrives_after_the_workers_have_shut_down(tmp_path: Path) -> None:
    def main(engine: mpspmd.Engine) -> None:
        raise KeyError("main's own")

    with pytest.raises(KeyError, match="main's own"):
        mpspmd.run(workers.Tidy, main, world_size=1, args=(str(tmp_path),))
    assert (tmp_path / "0").read_text() == "shut down\n"


def test_a_worker_of_the_script_itself_is_found_by_its_ranks(script: Any) -> None:
    app = script(
        _CLASS
        + """
if __name__ == "__main__":
    print(mpspmd.run(Worker, lambda engine: engine.execute_model(4), world_size=1))
"""
    )
    assert app.result() == (0, ["shut down 0", "40"], "")
    assert app.leftovers() == []


def test_a_worker_that_no_module_has_travels_by_value() -> None:
    cell: dict[str, Any] = {"mpspmd": mpspmd, "sys": sys, "__name__": "__main__"}
    exec(_CLASS, cell)
    run: Any = mpspmd.run
    assert run(cell["Worker"], lambda engine: engine.execute_model(4), world_size=1) == 40


def test_a_script_without_the_guard_is_told_so_and_ends(script: Any) -> None:
    app = script(_CLASS + "mpspmd.run(Worker, lambda engine: engine.execute_model(4))\n")
    code, out, err = app.result()
    assert (code, out) == (1, [])
    assert 'if __name__ == "__main__":' in err
    assert app.leftovers() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_workers_shut_down_without_a_traceback(
    script: Any, number: signal.Signals
) -> None:
    app = script(
        _CLASS
        + """
def main(engine):
    print("ready", flush=True)
    while True:
        engine.execute_model(1)

if __name__ == "__main__":
    import signal
    signal.signal(signal.SIGINT, signal.default_int_handler)
    mpspmd.run(Worker, main, world_size=2)
"""
    )
    process = app.start()
    assert process.stdout.readline() == "ready\n"
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does: the ranks get it too
    else:
        os.kill(process.pid, number)
    code, out, err = app.result()
    assert (code, err) == (128 + number, "")
    assert sorted(out) == ["shut down 0", "shut down 1"]
    assert app.leftovers() == []


def test_a_world_size_that_differs_from_the_launchers_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(LAUNCH_VARIABLE, "")  # restores the environment afterwards
    Launch(rank=-1, world_size=3, socket="").put(os.environ)
    with pytest.raises(ConfigError, match=r"mpspmd-launch has started 3 rank\(s\); give it -n 2"):
        mpspmd.run(workers.Calculator, print, world_size=2)
    assert LAUNCH_VARIABLE not in os.environ


def test_an_engine_made_without_run_is_refused_in_a_launched_rank(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(LAUNCH_VARIABLE, "")
    Launch(rank=1, world_size=2, socket="").put(os.environ)
    with pytest.raises(ConfigError, match=r"as rank 1.*call mpspmd\.run"):
        mpspmd.Engine(workers.Calculator, world_size=1)


def test_two_engines_at_once_do_not_disturb_each_other() -> None:
    with (
        mpspmd.Engine(workers.Calculator, world_size=2, args=(100,)) as one,
        mpspmd.Engine(workers.Calculator, world_size=1, args=(200,)) as other,
    ):
        futures = [
            engine.collective_rpc("add", args=(1,), non_block=True) for engine in (one, other) * 20
        ]
        replies = [future.result() for future in futures]
        assert replies[-2:] == [[120, 120], [220]]
        other.shutdown()
        assert one.collective_rpc("rank") == [0, 1]


def test_run_called_by_a_worker_is_refused() -> None:
    def nested(worker: Any) -> str:
        try:
            mpspmd.run(workers.Calculator, print)
        except ConfigError as error:
            return str(error)
        return ""

    def main(engine: mpspmd.Engine) -> str:
        return str(engine.call(nested, reply_ranks=0))

    assert "mpspmd-rank-0" in mpspmd.run(workers.Calculator, main, world_size=1)
