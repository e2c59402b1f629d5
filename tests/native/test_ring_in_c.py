"""The ring's tests in C: built and run here as CI has the time for; `make run` does all of them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def c_compiler() -> str | None:
    """The compiler that built this Python, or else `cc`; None if there is neither."""
    for command in (os.environ.get("CC"), sysconfig.get_config_var("CC"), "cc"):
        if command and shutil.which(shlex.split(command)[0]):
            return str(command)
    return None


@pytest.mark.skipif(c_compiler() is None, reason="no C compiler")
def test_the_ring_keeps_its_promises_in_c() -> None:
    done = subprocess.run(
        ["make", "-C", str(HERE), "quick", f"CC={c_compiler()}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert len(re.findall(r"OK ring_test: \d+ claims", done.stdout)) == 3, done.stdout
    total = re.search(r"^OK stress: (\d+) messages in \d+ runs$", done.stdout, re.MULTILINE)
    assert total, done.stdout
    assert int(total[1]) > 300_000, done.stdout
