"""The reference lists what there is: all settings, errors and columns, and figures that were measured."""

from __future__ import annotations

import ast
import dataclasses
import re
import tomllib

import pytest
from pages import DOCS, ROOT, prose_of, rows_under

import mpspmd
from mpspmd import errors
from mpspmd.cli.doctor.checks import Level
from mpspmd.config import RuntimeConfig, known_variables
from mpspmd.transport.segment import SHM
from mpspmd.vllm.compat import TESTED

REFERENCE = DOCS / "reference"
COMPATIBILITY = REFERENCE / "compatibility.md"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
_BOOLEANS = {True: "1", False: "0"}


def _as_variable(value: object) -> str:
    if isinstance(value, bool):
        return _BOOLEANS[value]
    return f"{value:g}" if isinstance(value, float) else "none" if value is None else str(value)


def _defaults(heading: str) -> dict[str, str]:
    rows = rows_under(REFERENCE / "settings.md", heading)
    return {row[0].strip("`"): row[1].strip("`") for row in rows}


def test_the_settings_are_those_of_the_configuration() -> None:
    assert _defaults("# Settings") == {
        f"MPSPMD_{field.name.upper()}": _as_variable(field.default)
        for field in dataclasses.fields(RuntimeConfig)
    }


def test_every_variable_is_explained() -> None:
    assert {*_defaults("# Settings"), *_defaults("## Other variables")} == {*known_variables()}


def test_every_documented_default_is_a_value_of_its_variable() -> None:
    # Where a path is named, an empty text stands for none.
    paths = ("MPSPMD_RUNTIME_DIR", "MPSPMD_DUMP_DIR", "MPSPMD_RECORD_REQUESTS")
    variables = {k: v for k, v in _defaults("# Settings").items() if k not in paths}
    assert RuntimeConfig.from_env(variables) == RuntimeConfig()


def test_every_error_is_explained_once() -> None:
    text = prose_of(REFERENCE / "errors.md")
    explained = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    assert sorted([*explained, "MpSpmdError"]) == sorted(errors.__all__)


@pytest.mark.parametrize("name", sorted(set(errors.__all__) - {"MpSpmdError"}))
def test_an_error_that_is_also_a_builtin_one_says_so(name: str) -> None:
    row = next(
        line
        for line in prose_of(REFERENCE / "errors.md").splitlines()
        if line.startswith(f"| `{name}` |")
    )
    bases = {base.__name__ for base in getattr(errors, name).__bases__}
    builtin = bases - set(errors.__all__) - {"MpSpmdError"}
    assert all(f"`{base}`" in row for base in builtin), builtin


def test_the_glossary_is_short() -> None:
    assert len(rows_under(REFERENCE / "glossary.md", "# Glossary")) <= 25


def _requirement(name: str, *extra: str) -> str:
    """The versions that pyproject.toml requires of a package."""
    requirements = PROJECT["optional-dependencies"][extra[0]] if extra else PROJECT["dependencies"]
    (found,) = (each for each in requirements if re.match(rf"{name}\W", each))
    return found.removeprefix(name)


def _next_minor(version: str) -> str:
    major, minor = version.split(".")
    return f"{major}.{int(minor) + 1}"


def test_what_is_supported_is_what_pyproject_says() -> None:
    rows = {row[0]: row[1] for row in rows_under(COMPATIBILITY, "## What mpspmd runs on")}
    assert _requirement("vllm", "vllm") == f">={TESTED[0]},<{_next_minor(TESTED[-1])}"
    assert rows["vLLM"] == f"{TESTED[0]} to {TESTED[-1]}"
    assert [row[0] for row in rows_under(REFERENCE / "versions.md", "# Versions of vLLM")] == [
        *TESTED
    ]
    pythons = re.findall(r":: Python :: (3\.\d+)'", str(PROJECT["classifiers"]))
    assert PROJECT["requires-python"] == f">={pythons[0]}"
    assert rows["Python"] == f"CPython {pythons[0]} to {pythons[-1]}"
    assert rows["PyTorch"] == f"{_requirement('torch').removeprefix('>=')} and later"
    readme = prose_of(ROOT / "README.md")
    assert f"vLLM {TESTED[0]} to {TESTED[-1]}" in readme
    assert f"Python {pythons[0]} or later" in readme


def test_the_newest_version_says_what_it_was_tested_with() -> None:
    version, vllms, *_ = rows_under(COMPATIBILITY, "## What each version was tested with")[0]
    assert (version, vllms) == (mpspmd.__version__, ", ".join(TESTED))


def test_the_changelog_begins_with_this_version() -> None:
    headings = re.findall(r"^(##+) (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == ("##", f"[{mpspmd.__version__}] - unreleased")
    kinds = {text for level, text in headings if level == "###"}
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_readmes_figures_are_those_of_the_benchmarks() -> None:
    """A program writes the benchmarks' documents; the README quotes the subject and the result of a row."""
    found = [
        (row[0], row[2])
        for name in ("benchmarks.md", "benchmarks-vllm.md")
        for row in rows_under(DOCS / name, "## What was aimed at")
    ]
    text = prose_of(ROOT / "README.md")
    quoted = re.search(r"^\| measured \| result \|\n\|.*\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert quoted is not None
    for line in quoted[1].splitlines():
        subject, result = (cell.strip() for cell in line.strip("| ").split(" | "))
        assert (subject, result) in found, "copy the row from docs/benchmarks*.md again"


def test_troubleshooting_quotes_the_doctor() -> None:
    """The second column of its tables is the level and the subject of a finding."""
    sources = (ROOT / "mpspmd" / "cli" / "doctor" / "checks").glob("*.py")
    texts = {
        node.value
        for path in sources
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant)
    }
    quoted = re.findall(
        r"^\| .* \| ([a-z]+(?: or [a-z]+)?): ([^|]+) \| .* \|$",
        prose_of(DOCS / "howto" / "troubleshooting.md"),
        re.MULTILINE,
    )
    assert quoted
    levels = {level.value for level in Level}
    for words, subject in quoted:
        assert set(words.split(" or ")) <= levels
        assert subject in texts | {SHM}, subject
