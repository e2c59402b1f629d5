"""Checks how the C sources include each other: no circle, no folder above its own, no Python below.

Part of `make lint`: prints what is wrong, and exits with 1 then.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

MAY_INCLUDE = {
    "ring": {"ring"},
    "wait": {"wait", "ring"},
    "run": {"run", "ring"},
    "packing": {"packing"},
    "extension": {"extension", "Python.h", "structmember.h"},
    "python": {"python", "extension", "run", "wait", "ring"},
    "delta": {"delta", "extension", "packing"},
}
"""What the files of a folder in csrc/ may include, besides the headers of the C library."""

_INCLUDE = re.compile(
    r'^\s*#\s*include\s*(?:"([^"]+)"|<(Python\.h|structmember\.h)>)', re.MULTILINE
)


def included_by(file: Path) -> list[str]:
    """In quotes, from the root of the sources; or a header of Python's."""
    return [quoted or python for quoted, python in _INCLUDE.findall(file.read_text())]


def find_faults(root: Path) -> list[str]:
    """What is wrong with the includes of the sources in the folders of `root`."""
    names = sorted(str(file.relative_to(root)) for file in root.glob("*/*.[ch]"))
    graph = {name: included_by(root / name) for name in names}
    faults = [
        f"{name} includes {other}, which isn't in the sources"
        for name, others in graph.items()
        for other in others
        if other not in graph and other not in ("Python.h", "structmember.h")
    ]
    faults += [
        f"{name} includes {other}: {name.split('/')[0]}/ must not"
        for name, others in graph.items()
        for other in others
        if other.split("/")[0] not in MAY_INCLUDE.get(name.split("/")[0], set())
    ]
    circle = _find_circle(graph)
    return [*faults, f"a circle: {' -> '.join(circle)}"] if circle else faults


def _find_circle(graph: dict[str, list[str]]) -> list[str]:
    """One of them, from a file back to itself; empty if there is none."""
    done: set[str] = set()

    def follow(path: list[str]) -> list[str]:
        if path[-1] in path[:-1]:
            return path[path.index(path[-1]) :]
        if path[-1] not in done:
            for other in graph.get(path[-1], []):
                if circle := follow([*path, other]):
                    return circle
            done.add(path[-1])
        return []

    return next((circle for name in graph if (circle := follow([name]))), [])


if __name__ == "__main__":
    found = find_faults(Path(sys.argv[1]))
    print("\n".join(found))
    sys.exit(bool(found))
