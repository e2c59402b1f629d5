"""Where the native module can't work, it isn't built or imported, and says why."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(60)

_ROOT = Path(__file__).parents[2]


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=30,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )


_IN_A_SUBINTERPRETER = """
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
program = '''
try:
    import mpspmd.MODULE
except ImportError as error:
    print(error)
'''
run = getattr(interpreters, "exec", None) or interpreters.run_string
one = interpreters.create()
failed = run(one, program)
assert not failed, failed
interpreters.destroy(one)
import mpspmd.MODULE
"""


each_module = pytest.mark.parametrize("module", ["_ring", "_delta"])


@each_module
def test_a_subinterpreter_is_refused(module: str) -> None:
    done = run(_IN_A_SUBINTERPRETER.replace("MODULE", module))
    assert done.returncode == 0, done.stderr
    assert "interpreter" in done.stdout


@each_module
def test_without_the_interpreters_lock_the_import_is_refused(module: str) -> None:
    """Asked as a free-threaded CPython answers; most machines have none."""
    answers = "import sys; sys._is_gil_enabled = lambda: {}\nimport mpspmd.{}"
    done = run(answers.format(False, module))
    assert done.returncode == 1
    assert "ImportError: mpspmd needs the global interpreter lock" in done.stderr
    done = run(answers.format(True, module))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("header", ["ring/layout.h", "packing/bytes.h"])
def test_a_32_bit_build_is_refused(header: str) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    if subprocess.run([compiler, "-m32", "-E", "-x", "c", os.devnull]).returncode != 0:
        pytest.skip("this compiler makes no 32-bit programs")
    if not (_ROOT / "csrc").is_dir():
        pytest.skip("the C sources aren't here")
    check = [compiler, "-fsyntax-only", "-x", "c", str(_ROOT / "csrc" / header)]
    done = subprocess.run([*check, "-m32"], capture_output=True, text=True, timeout=30)
    assert done.returncode != 0
    assert "mpspmd needs a 64-bit system" in done.stderr
    done = subprocess.run(check, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
