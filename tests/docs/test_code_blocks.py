"""The code in the documents works.

The Python of a document runs as at a prompt, one block after the other in one process; the shell's blocks
run in the repository; YAML and INI are parsed. What can't run here says so in the document, with a comment
before the block: `<!--- skip: next "needs vLLM" -->`.
"""

from __future__ import annotations

import configparser
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import SkipTest

import pytest
import yaml
from pages import DOCUMENTS, ROOT, name_of
from sybil import Document, Example
from sybil.parsers.markdown import CodeBlockParser, SkipParser

_REASONS = (
    "an excerpt of examples/",
    "installs packages",
    "needs vLLM",
    "needs Docker",
    "needs a cluster",
    "needs an engine that runs",
    "needs a recording",
    "needs several machines",
    "needs systemd",
    "needs Slurm",
    "takes minutes",
    "runs until it is stopped",
)
_NOT_CODE = {"text", "mermaid"}
_WITH_CODE = [document for document in DOCUMENTS if "\n```" in document.read_text()]

# Nobody can import what is defined at a prompt: classes and functions go to the ranks by value.
_AT_A_PROMPT = """
import json, sys
for _line, _source in json.load(sys.stdin):
    exec(compile("\\n" * _line + _source, sys.argv[1], "exec"), globals())
"""


class _Blocks:
    """The blocks of a document, gathered by language."""

    def __init__(self, path: Path) -> None:
        self.by_language: dict[str, list[tuple[int, str]]] = {}
        self.skipped: list[str] = []
        languages = set(re.findall(r"^\s*```(\S+)$", path.read_text(), re.MULTILINE))
        parsers = [CodeBlockParser(each, self._gatherer(each)) for each in sorted(languages)]
        for example in Document.parse(str(path), SkipParser(), *parsers):
            try:
                example.evaluate()
            except SkipTest as reason:
                self.skipped.append(str(reason))

    def _gatherer(self, language: str) -> Callable[[Example], None]:
        def gather(example: Example) -> None:
            line = example.line + example.parsed.line_offset
            self.by_language.setdefault(language, []).append((line, str(example.parsed)))

        return gather


@pytest.fixture(scope="module")
def search_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """PATH with the commands as they are here, whatever is installed."""
    folder = tmp_path_factory.mktemp("bin")
    for name in ("launch", "top", "trace", "alive", "metrics", "doctor"):
        command = folder / f"mpspmd-{name}"
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mpspmd {name} "$@"\n')
        command.chmod(0o755)
    return f"{folder}:{os.path.dirname(sys.executable)}:{os.environ['PATH']}"


def _run(command: list[str], search_path: str, text: str = "") -> None:
    done = subprocess.run(
        command,
        input=text,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        env=os.environ | {"PATH": search_path},
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def _parse_ini(text: str) -> None:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.read_string(text)
    assert parser.sections()


@pytest.mark.parametrize("path", _WITH_CODE, ids=name_of)
def test_the_code_of_a_document_works(path: Path, search_path: str) -> None:
    blocks = _Blocks(path).by_language
    if python := blocks.pop("python", None):
        _run([sys.executable, "-c", _AT_A_PROMPT, name_of(path)], search_path, json.dumps(python))
    for _, source in blocks.pop("sh", []):
        _run(["bash", "-euc", source], search_path)
    for _, source in blocks.pop("yaml", []):
        assert list(yaml.safe_load_all(source))
    for _, source in blocks.pop("ini", []):
        _parse_ini(source)
    for _, source in blocks.pop("json", []):
        json.loads(source)
    assert blocks.keys() <= _NOT_CODE, "which language is that? See tests/docs/test_code_blocks.py"


@pytest.mark.parametrize("path", _WITH_CODE, ids=name_of)
def test_what_is_skipped_has_a_good_reason(path: Path) -> None:
    assert [reason for reason in _Blocks(path).skipped if not reason.startswith(_REASONS)] == []


def test_every_block_says_its_language() -> None:
    for path in _WITH_CODE:
        fences = re.findall(r"^\s*```(.*)$", path.read_text(), re.MULTILINE)
        assert all(fences[::2]), name_of(path)
        assert not any(fences[1::2]), name_of(path)
