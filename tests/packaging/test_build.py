"""Building without what a build needs ends with a message that names all that is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (
            {"CC": "no-such-compiler"},
            "a C compiler can't be found. On Debian and Ubuntu: apt-get install gcc\n",
        ),
        (
            {"NO_HEADERS": "1"},
            "Python's headers (/nowhere/Python.h) can't be found. "
            "On Debian and Ubuntu: apt-get install python3-dev\n",
        ),
        (
            {"CC": "no-such-compiler", "NO_HEADERS": "1"},
            "a C compiler and Python's headers (/nowhere/Python.h) can't be found. "
            "On Debian and Ubuntu: apt-get install gcc python3-dev\n",
        ),
    ],
)
def test_a_build_says_what_is_missing(
    variables: dict[str, str], message: str, tmp_path: Path
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
    assert done.stderr.endswith(message)
    assert "Traceback" not in done.stderr
