"""Building without what a build needs ends in one sentence that says what is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("variables", "missing"),
    [
        ({"CC": "no-such-compiler"}, "a C compiler can't be found"),
        ({"NO_HEADERS": "1"}, "Python's headers (/nowhere/Python.h) can't be found"),
    ],
)
def test_a_build_says_what_is_missing(
    variables: dict[str, str], missing: str, tmp_path: Path
) -> None:
    program = (
        "import os, runpy, sys, sysconfig\n"
        "if 'NO_HEADERS' in os.environ:\n"
        "    sysconfig.get_path = lambda name: '/nowhere'\n"
        f"sys.argv = ['setup.py', '-q', 'build_ext', '--build-lib', {str(tmp_path)!r}, "
        f"'--build-temp', {str(tmp_path)!r}]\n"
        "runpy.run_path('setup.py', run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=_ROOT,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert missing in done.stderr
    assert "apt-get install" in done.stderr
    assert "Traceback" not in done.stderr
