"""The types that users see."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

import mpspmd

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.skipif(
        importlib.util.find_spec("mypy") is None, reason="mypy isn't installed (pip install mypy)"
    ),
]

_USER_CODE = Path(__file__).with_name("user_code.py")

_WRONG_CODE = """
import mpspmd
mpspmd.Engine(mpspmd.Worker, world_size="2")
mpspmd.Engine(mpspmd.Worker, world_size=2).call("m", reply_ranks="some")
mpspmd.RuntimeConfig(no_such_setting=1)
mpspmd.no_such_name
mpspmd.RuntimeConfig(wait="sleep")
mpspmd.Engine(mpspmd.Worker, world_size=2).execute_model(non_block=True).tokens
"""

# torch's own sources are not the question, and take a minute. Nor are ours: `make lint` has them.
_CONFIG = """
[mypy]
strict = True
[mypy-torch.*]
follow_imports = skip
[mypy-mpspmd.*]
follow_imports = silent
"""


def test_typical_user_code_is_strictly_typed_and_wrong_code_is_found(tmp_path: Path) -> None:
    (tmp_path / "mypy.ini").write_text(_CONFIG)
    (tmp_path / "wrong.py").write_text(_WRONG_CODE)
    # mypy doesn't see a package that is installed with `pip install -e`.
    package = Path(mpspmd.__file__).parent
    assert (package / "py.typed").exists()
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", str(_USER_CODE), "wrong.py"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"MYPY_CACHE_DIR": "cache", "MYPYPATH": str(package.parent)},
    )
    errors = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert [line.split(":")[:2] for line in errors] == [
        ["wrong.py", str(number)] for number in range(3, 9)
    ], done.stdout + done.stderr
