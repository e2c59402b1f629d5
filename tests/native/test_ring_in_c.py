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


def run_make(target: str, *variables: str) -> str:
    done = subprocess.run(
        ["make", "-C", str(HERE), target, *variables],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def n_messages(output: str) -> int:
    total = re.search(r"^OK stress: (\d+) messages in \d+ runs$", output, re.MULTILINE)
    assert total, output
    return int(total[1])


@pytest.mark.skipif(c_compiler() is None, reason="no C compiler")
def test_the_ring_keeps_its_promises_in_c() -> None:
    output = run_make("quick", f"CC={c_compiler()}")
    assert len(re.findall(r"OK ring_test: \d+ claims$", output, re.MULTILINE)) == 3, output
    assert n_messages(output) > 300_000


@pytest.mark.slow
@pytest.mark.skipif(
    not (shutil.which("aarch64-linux-gnu-gcc") and shutil.which("qemu-aarch64")),
    reason="no compiler for aarch64, or no emulator",
)
def test_the_ring_keeps_its_promises_on_arm64() -> None:
    output = run_make("arm64")
    claims = re.search(r"^arm64 OK ring_test: (\d+) claims, 10 more", output, re.MULTILINE)
    assert claims, output
    assert int(claims[1]) > 100, output
    assert n_messages(output) > 900_000
