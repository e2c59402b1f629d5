"""The check of the C sources' includes, which is a part of `make lint`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_CHECK = _ROOT / "tests" / "native" / "check_includes.py"


def check(sources: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(_CHECK), str(sources)], capture_output=True, text=True, timeout=30
    )


def write(root: Path, **files: str) -> None:
    """`ring_a="…"` is ring/a.h."""
    for name, text in files.items():
        file = root / f"{name.replace('_', '/')}.h"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)


def test_the_sources_include_each_other_without_a_circle() -> None:
    done = check(_ROOT / "csrc")
    assert done.returncode == 0, done.stdout


def test_a_circle_is_named(tmp_path: Path) -> None:
    write(
        tmp_path,
        ring_a='#include "ring/b.h"\n',
        ring_b='#include <stdint.h>\n#include "ring/c.h"\n',
        ring_c='#include "ring/a.h"\n',
    )
    done = check(tmp_path)
    assert done.returncode == 1
    assert "a circle: ring/a.h -> ring/b.h -> ring/c.h -> ring/a.h" in done.stdout


def test_a_folder_that_includes_a_higher_one_is_named(tmp_path: Path) -> None:
    write(tmp_path, ring_a='#include "wait/b.h"\n', wait_b="")
    done = check(tmp_path)
    assert done.returncode == 1
    assert "ring/a.h includes wait/b.h" in done.stdout


def test_python_in_the_plain_part_is_named(tmp_path: Path) -> None:
    write(tmp_path, ring_a="#include <Python.h>\n")
    done = check(tmp_path)
    assert done.returncode == 1
    assert "ring/a.h includes Python.h" in done.stdout


def test_a_header_that_is_not_there_is_named(tmp_path: Path) -> None:
    write(tmp_path, ring_a='#include "ring/b.h"\n')
    done = check(tmp_path)
    assert done.returncode == 1
    assert "ring/a.h includes ring/b.h, which isn't in the sources" in done.stdout
