"""The document: one table, a row for each feature, a column for each version."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

from parity.feature import Feature
from parity.verdict import Verdict

_HEAD = """# What `mp-spmd` does beside `mp`

`make parity` runs each feature of vLLM on both backends and writes this page: the same model, requests
and settings, two ranks unless the row says otherwise. Compared are values (tokens and log-probabilities
to the last bit), errors, files and processes that are left, and, unless the machine was busy, the time
to start and to stop where it differs by a factor. Rows of one engine may share a process.

**same**: nothing of that differs. **better**, **worse**: says how. **n. a.**: says why. An empty cell
has not been run.

"""


def write(
    features: Mapping[str, Feature],
    versions: list[str],
    verdicts: Mapping[tuple[str, str], Verdict],
    machine: str,
    before: str = "",
) -> str:
    """`verdicts` by (row, version). A cell without one is copied from `before`, the old document."""
    kept = _read(before)
    lines = [
        "| feature | " + " | ".join(f"vLLM {version}" for version in versions) + " |",
        "| --- |" + " --- |" * len(versions),
    ]
    for name, feature in features.items():
        cells = [
            _cell(verdicts[name, version])
            if (name, version) in verdicts
            else kept.get((feature.title, f"vLLM {version}"), "")
            for version in versions
        ]
        lines.append(f"| {feature.title} | " + " | ".join(cells) + " |")
    return _HEAD + "\n".join(lines) + f"\n\n{machine}\n"


def counts(text: str) -> dict[str, Counter[str]]:
    """By column: how many cells of each kind a document has."""
    found: dict[str, Counter[str]] = {}
    for (_, column), cell in _read(text).items():
        kind = cell.split("**")[1] if cell else "empty"
        found.setdefault(column, Counter())[kind] += 1
    return found


def _read(text: str) -> dict[tuple[str, str], str]:
    """The cells of a document's table, by the row's title and the column's."""
    lines = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in text.splitlines()
        if line.startswith("| ")
    ]
    if not lines:
        return {}
    _, *columns = lines[0]
    return {
        (title, column): cell
        for title, *cells in lines[2:]
        for column, cell in zip(columns, cells, strict=True)
    }


def _cell(verdict: Verdict) -> str:
    how = f": {verdict.how}" if verdict.how else ""
    return f"**{verdict.kind}**{how}".replace("|", "\\|").replace("\n", " ")
