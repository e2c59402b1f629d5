"""`import mpspmd` is cheap: what is large is imported when it is used."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mpspmd
import mpspmd.errors

_LARGE = ("torch", "vllm", "zmq", "msgspec", "cloudpickle", "numpy")

_MEASURE = f"""
import json, sys, time
before = time.process_time()
import mpspmd
took_s = time.process_time() - before
loaded = [name for name in {_LARGE!r} if name in sys.modules]
print(json.dumps([took_s, loaded]))
"""


def _in_a_fresh_interpreter(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_is_fast_and_loads_nothing_large() -> None:
    took_s, loaded = json.loads(_in_a_fresh_interpreter(_MEASURE))
    assert loaded == []
    assert took_s < 1.0  # of processor time, ten times what is promised


@pytest.mark.parametrize(
    "name",
    ["RuntimeConfig", "ExecuteModelRequest", "RankDied", "StallReport", "Worker", "errors"],
)
def test_names_that_need_nothing_large_load_nothing_large(name: str) -> None:
    program = (
        f"import mpspmd, sys; mpspmd.{name}; print([n for n in {_LARGE!r} if n in sys.modules])"
    )
    assert _in_a_fresh_interpreter(program) == "[]\n"


def test_engine_and_ranks_run_without_torch() -> None:
    program = """
import sys
from mpspmd import Engine
from mpspmd import Worker

def imported(worker=None):
    return "torch" in sys.modules

def mapped(worker=None):
    with open("/proc/self/maps") as maps:
        return any("libtorch" in line or "libcuda" in line for line in maps)

if __name__ == "__main__":
    with Engine(Worker, world_size=1) as engine:
        print(imported(), engine.collective_rpc(imported), mapped(), engine.collective_rpc(mapped))
"""
    assert _in_a_fresh_interpreter(program) == "False [False] False [False]\n"


def test_a_start_imports_nothing_that_only_dumps_reports_or_recordings_need() -> None:
    program = """
import sys
before = frozenset(sys.modules)
from mpspmd import Engine, Worker

def imported(worker, names):
    return names & sys.modules.keys()

if __name__ == "__main__":
    with Engine(Worker, world_size=1) as engine:
        unneeded = {"importlib.metadata", "email", "mpspmd.engine.recording", "mpspmd.recording"}
        print(imported(None, unneeded - before))
        print(engine.collective_rpc(imported, ({"importlib.metadata", "mpspmd.report"} - before,)))
"""
    assert _in_a_fresh_interpreter(program) == "set()\n[set()]\n"


def test_all_public_names_are_there_and_no_other() -> None:
    for name in mpspmd.__all__:
        assert getattr(mpspmd, name).__name__.removeprefix("mpspmd.") == name
    assert set(mpspmd.__all__) <= set(dir(mpspmd))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = mpspmd.no_such_name


def test_every_error_is_a_name_of_the_package() -> None:
    for name in mpspmd.errors.__all__:
        assert getattr(mpspmd, name) is getattr(mpspmd.errors, name)
        assert name in mpspmd.__all__


def test_the_errors_need_no_import_of_their_own() -> None:
    program = "import mpspmd; print(mpspmd.errors.RankDied is mpspmd.RankDied)"
    assert _in_a_fresh_interpreter(program) == "True\n"


@pytest.mark.parametrize("program", ["import mpspmd; mpspmd.run", "from mpspmd import Engine"])
def test_a_program_beside_the_sources_is_told_that_they_are_not_built(
    program: str, tmp_path: Path
) -> None:
    _refused(["-c", program], tmp_path)


def test_a_command_beside_the_sources_is_told_that_they_are_not_built(tmp_path: Path) -> None:
    _refused(["-m", "mpspmd", "doctor"], tmp_path)


_NOT_EDITABLE = """
import sys
sys.meta_path = [each for each in sys.meta_path if "__editable__" not in str(each)]
"""
"""Where mpspmd is installed as editable, its finder would find the extensions of another folder."""


def _refused(arguments: list[str], folder: Path) -> None:
    """In a folder with the sources, which Python finds before an installed mpspmd."""
    package = Path(mpspmd.__file__).parent
    # Another process may write bytecode at the same time, first into files of other names.
    left_out = shutil.ignore_patterns("*.so", "__pycache__")
    sources = shutil.copytree(package, folder / "mpspmd", ignore=left_out)
    (folder / "sitecustomize.py").write_text(_NOT_EDITABLE)
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert f"ImportError: Python imported mpspmd from {sources}, " in done.stderr
    assert "keep your program outside the folder" in done.stderr
