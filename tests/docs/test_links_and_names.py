"""Documents lead to pages that exist, and name code that exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from definitions import classes, defines, has_member, module_of
from pages import (
    DOCS,
    DOCUMENTS,
    ROOT,
    WRITTEN_BY_PROGRAMS,
    anchors_of,
    code_in,
    fenced_in,
    links_in,
    name_of,
)

import mpspmd

WRITTEN_BY_HAND = [
    document
    for document in DOCUMENTS
    if not name_of(document).startswith(tuple(f"docs/{name}" for name in WRITTEN_BY_PROGRAMS))
]
_FILE = re.compile(r"[\w./*-]*[\w*]\.(?:py|pyi|c|h|md|pml|sh|toml)")
_MEMBER = re.compile(r"([A-Z]\w*)\.(\w+)(?:\(.*\))?")
_PUBLIC = re.compile(r"mpspmd(?:\.\w+)+(?:\(.*\))?")


def _documents(documents: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("document", documents, ids=name_of)


@_documents([*DOCUMENTS, ROOT / "CHANGELOG.md"])
def test_every_link_leads_somewhere(document: Path) -> None:
    dead = []
    for link in links_in(document):
        target, _, anchor = link.partition("#")
        if "://" in target:
            continue
        page = (document.parent / target).resolve() if target else document
        if not page.exists() or (anchor and anchor not in anchors_of(page)):
            dead.append(link)
    assert not dead


def test_the_index_leads_to_every_page() -> None:
    index = DOCS / "index.md"
    linked = {(index.parent / link.partition("#")[0]).resolve() for link in links_in(index)}
    # The last one is there only after `make gpu-check` on a machine with GPUs.
    pages = set(DOCS.rglob("*.md")) - {index, DOCS / "benchmarks-gpu.md"}
    assert pages <= linked, f"not in docs/index.md: {sorted(map(name_of, pages - linked))}"


@_documents(WRITTEN_BY_HAND)
def test_every_file_that_a_document_names_exists(document: Path) -> None:
    """`path/file.py` is relative to the repository; `path/file.py::Class.method` names what is in it."""
    wrong = []
    for word in " ".join(code_in(document)).split():
        file, _, name = word.partition("::")
        if not _FILE.fullmatch(file) or (not name and "/" not in file) or file.startswith("/"):
            continue
        paths = list(ROOT.glob(file))
        if not paths or (name and not defines(paths[0], name)):
            wrong.append(word)
    assert not wrong, "renamed or removed? The document must say where it is now"


@_documents(WRITTEN_BY_HAND)
def test_every_test_that_a_document_names_exists(document: Path) -> None:
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    named = [code for code in code_in(document) if re.fullmatch(r"test_\w+", code)]
    assert [name for name in named if f"def {name}(" not in tests] == []


@_documents(WRITTEN_BY_HAND)
def test_every_name_of_ours_exists(document: Path) -> None:
    """`mpspmd.module.name`, and `Class.member` of a class of ours."""
    wrong = []
    for code in code_in(document):
        if _PUBLIC.fullmatch(code):
            path, rest = module_of(code.partition("(")[0])
            exists = not rest or defines(path, rest) or hasattr(mpspmd, rest.partition(".")[0])
            if not exists:
                wrong.append(code)
        elif (match := _MEMBER.fullmatch(code)) and match[1] in classes():
            if not has_member(match[1], match[2]):
                wrong.append(code)
    assert not wrong, "renamed or removed? The document must say what it is called now"


@_documents(DOCUMENTS)
def test_every_make_command_exists(document: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    text = "\n".join([*code_in(document), *fenced_in(document)])
    named = re.findall(r"^(?:\S+ )?make ([a-z0-9-]+)", text, re.MULTILINE)
    assert [name for name in named if f"\n{name}:" not in makefile] == []
