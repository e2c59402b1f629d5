"""The ring's protocol, checked exhaustively by spin: see ring.pml."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(shutil.which("spin") is None, reason="spin is not installed")
def test_spin_verifies_the_protocol_and_refutes_every_mutant() -> None:
    done = subprocess.run(
        [Path(__file__).with_name("verify.sh")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert len(re.findall(r"^verified ", done.stdout, re.MULTILINE)) == 5
    assert len(re.findall(r"^refuted ", done.stdout, re.MULTILINE)) == 21
