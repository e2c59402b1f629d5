"""Markdown documents: their links, headings, tables, and the names of code in them."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
WRITTEN_BY_PROGRAMS = ("benchmarks", "reference/parity.md")

_FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


def name_of(document: Path) -> str:
    return str(document.relative_to(ROOT))


@cache
def prose_of(document: Path) -> str:
    """All of it but the code blocks."""
    return _FENCED.sub("", document.read_text())


def links_in(document: Path) -> list[str]:
    return _LINK.findall(prose_of(document))


def code_in(document: Path) -> list[str]:
    """What stands between backticks."""
    return _CODE.findall(prose_of(document))


def fenced_in(document: Path) -> list[str]:
    """The code blocks, fences included."""
    return _FENCED.findall(document.read_text())


@cache
def anchors_of(document: Path) -> frozenset[str]:
    """As GitHub makes them from headings."""
    headings = _HEADING.findall(prose_of(document))
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return frozenset(heading.replace(" ", "-") for heading in plain)


def rows_under(document: Path, heading: str) -> list[list[str]]:
    """The cells of the first table under a heading, without its head."""
    after = f"\n{document.read_text()}".split(f"\n{heading}\n", 1)[1]
    lines = after[after.index("\n|") + 1 :].split("\n\n", 1)[0].splitlines()
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines[2:]]
