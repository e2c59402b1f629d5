"""However a program is started, its ranks find what it defines; or the error says what to do."""

from __future__ import annotations

import py_compile
import sys
import zipfile
from pathlib import Path

import pytest
from traces import HERE, Traces

pytestmark = pytest.mark.timeout(90)

MAINS = HERE / "mains.py"


def _make_pyc(folder: Path) -> list[str]:
    return [str(py_compile.compile(str(MAINS), str(folder / "app.pyc"), doraise=True))]


def _make_zip(folder: Path) -> list[str]:
    with zipfile.ZipFile(folder / "app.zip", "w") as archive:
        archive.write(MAINS, "__main__.py")
    return [str(folder / "app.zip")]


def _make_package(folder: Path) -> list[str]:
    package = folder / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(MAINS.read_text())
    return ["-m", "package"]


HOWS = {
    "a script": lambda folder: [str(MAINS)],
    "-m with a module": lambda folder: ["-m", "mains"],
    "-m with a package": _make_package,
    "a .pyc": _make_pyc,
    "an archive": _make_zip,
    "-c": lambda folder: ["-c", MAINS.read_text()],
    "runpy": lambda folder: [
        "-c", f"import runpy; runpy.run_path({str(MAINS)!r}, run_name='__main__')",
    ],
}  # fmt: skip


@pytest.mark.parametrize("how", HOWS)
def test_what_a_program_defines_goes_both_ways(
    traces: Traces, tmp_path_factory: pytest.TempPathFactory, how: str
) -> None:
    folder = tmp_path_factory.mktemp("program")
    command = HOWS[how](folder)
    path = f"{folder}:{traces.environment['PYTHONPATH']}"
    done = traces.run(sys.executable, *command, PYTHONPATH=path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")


@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
def test_a_program_from_standard_input_too(traces: Traces, name: str) -> None:
    done = traces.run(sys.executable, name, after=f"<{MAINS}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")


@pytest.mark.parametrize("how", [["cProfile", "-o"], ["trace", "--count", "-C"]])
def test_a_program_that_is_no_module_reaches_its_ranks(
    traces: Traces, tmp_path_factory: pytest.TempPathFactory, how: list[str]
) -> None:
    """These are the main module themselves, and run the script in a namespace without a name."""
    kept = tmp_path_factory.mktemp("program") / "profile"
    done = traces.run(sys.executable, "-m", *how, str(kept), str(HERE / "echo.py"), "2")
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")


def test_a_program_in_the_debugger_too(traces: Traces) -> None:
    done = traces.run(sys.executable, "-m", "pdb", "-c", "continue", "-c", "quit", str(MAINS))
    assert (done.returncode, done.stderr) == (0, "")
    assert "ok" in done.stdout.splitlines(), done.stdout


def test_a_launched_script_has_its_own_main_module(traces: Traces) -> None:
    done = traces.run("mpspmd-launch", "-n", "1", str(MAINS))
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")


def test_a_cell_that_defines_a_class_again_sends_the_new_one(traces: Traces) -> None:
    cells = """
import mpspmd
class Worker(mpspmd.Worker):
    def execute_model(self, value): return value
class Value: text = "old"
engine = mpspmd.Engine(Worker, world_size=1)
old = Value()
assert type(engine.execute_model(old)) is Value
class Value: text = "new"
assert engine.collective_rpc(lambda worker, value: value.text, args=(Value(),)) == ["new"]
assert engine.collective_rpc(lambda worker, value: value.text, args=(old,)) == ["old"]
assert type(engine.execute_model(old)) is type(old)
engine.shutdown()
print("ok")
"""
    done = traces.run(sys.executable, "-c", cells)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")


CLASS = "import mpspmd, sys\nclass Worker(mpspmd.Worker):\n    pass\n"
# However late the second rank of a busy machine fails.
PATIENCE = "    from mpspmd.engine import blame\n    blame.START_SETTLE_S = 30\n"
CALLS = {
    "Engine": "mpspmd.Engine(Worker, world_size=2)",
    "run": "mpspmd.run(Worker, print, world_size=2)",
}


@pytest.mark.parametrize("call", CALLS)
def test_a_script_without_the_guard_is_told_so_once(
    traces: Traces, tmp_path_factory: pytest.TempPathFactory, call: str
) -> None:
    script = tmp_path_factory.mktemp("program") / "app.py"
    script.write_text(CLASS + CALLS[call])
    done = traces.run(sys.executable, str(script))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("Traceback") == 1, done.stderr
    assert done.stderr.count('under `if __name__ == "__main__":`') <= 2, done.stderr
    assert "ConfigError" in done.stderr


def test_a_script_without_the_guard_that_starts_other_processes_is_told_so_once(
    traces: Traces, tmp_path_factory: pytest.TempPathFactory
) -> None:
    script = tmp_path_factory.mktemp("program") / "app.py"
    script.write_text(
        CLASS
        + "import multiprocessing\n"
        + "multiprocessing.get_context(sys.argv[1]).Process(target=print).start()\n"
        + CALLS["Engine"]
    )
    done = traces.run(sys.executable, str(script), "fork")
    assert done.returncode == 1
    assert 'under `if __name__ == "__main__":`' in done.stderr


def test_what_the_main_module_raises_on_a_rank_is_the_starts_error(
    traces: Traces, tmp_path_factory: pytest.TempPathFactory
) -> None:
    script = tmp_path_factory.mktemp("program") / "app.py"
    script.write_text(
        CLASS
        + "if __name__ != '__main__':\n    raise OSError('only once')\n"
        + "if __name__ == '__main__':\n"
        + PATIENCE
        + "    "
        + CALLS["Engine"]
    )
    done = traces.run(sys.executable, str(script))
    assert done.returncode == 1
    assert "StartupError: 2 rank(s) failed while starting\nranks 0, 1: OSError: only once" in (
        done.stderr
    )


def test_a_scripts_signal_handlers_are_not_its_ranks(
    traces: Traces, tmp_path_factory: pytest.TempPathFactory
) -> None:
    script = tmp_path_factory.mktemp("program") / "app.py"
    script.write_text(
        CLASS
        + "import signal\nfor number in (signal.SIGINT, signal.SIGTERM):\n"
        + "    signal.signal(number, signal.default_int_handler)\n"
        + "def handlers(worker):\n"
        + "    return [repr(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]\n"
        + "if __name__ == '__main__':\n"
        + "    with mpspmd.Engine(Worker, world_size=1) as engine:\n"
        + "        print(*engine.call(handlers, reply_ranks=0), sep='\\n')\n"
    )
    done = traces.run(sys.executable, str(script))
    assert (done.returncode, done.stderr) == (0, "")
    interrupt, terminate = done.stdout.splitlines()
    assert "SIG_IGN" in interrupt
    assert "RankSignals" in terminate


def test_a_worker_under_the_guard_is_refused_with_the_remedy(
    traces: Traces, tmp_path_factory: pytest.TempPathFactory
) -> None:
    script = tmp_path_factory.mktemp("program") / "app.py"
    script.write_text(
        "import mpspmd\nif __name__ == '__main__':\n    class Worker(mpspmd.Worker): pass\n"
        + PATIENCE
        + "    "
        + CALLS["Engine"]
    )
    done = traces.run(sys.executable, str(script))
    assert done.returncode == 1
    assert "ranks 0, 1: DecodeError: the worker or its arguments" in done.stderr
    assert 'not under `if __name__ == "__main__":`' in done.stderr
