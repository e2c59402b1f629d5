"""What the sources define: looked up without importing them, because some need vLLM."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from pages import ROOT

PACKAGE = ROOT / "mpspmd"


def defines(path: Path, name: str) -> bool:
    """Whether a source file has such a function, class or constant. `Class.method` is in a class."""
    if path.suffix in (".c", ".h"):
        return _defines_c(path.read_text(), name)
    scope: list[ast.stmt] = _tree(path).body
    parts = name.split(".")
    for part in parts[:-1]:
        found = [node for node in scope if isinstance(node, ast.ClassDef) and node.name == part]
        if not found:
            return False
        scope = found[0].body
    return parts[-1] in set(_names(scope))


def _defines_c(text: str, name: str) -> bool:
    """A definition begins in the first column; a declaration ends in a semicolon."""
    word = re.escape(name)
    function = rf"^[a-z][^\n;{{}}=]*\b{word}\([^;{{}}]*\)\s*(__attribute__[^{{;]*)?\{{"
    other = (
        rf"^(struct|enum|union) {word} \{{|^#define {word}\b|^\s+{word}( =[^,\n]*)?,|\b{word} = "
    )
    return re.search(f"{function}|{other}", text, re.MULTILINE) is not None


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def _names(scope: list[ast.stmt]) -> Iterator[str]:
    for node in scope:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
                # Attributes that a method sets.
                for each in ast.walk(node):
                    if isinstance(each, ast.Attribute) and isinstance(each.ctx, ast.Store):
                        yield each.attr
            case ast.ClassDef(name=name):
                yield name
            case ast.Assign(targets=targets):
                yield from (target.id for target in targets if isinstance(target, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name
            case ast.If(body=body, orelse=orelse):
                yield from _names([*body, *orelse])


@cache
def classes() -> dict[str, list[tuple[Path, list[str]]]]:
    """Each class of the package: where it is, and its bases."""
    found: dict[str, list[tuple[Path, list[str]]]] = {}
    for path in [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.pyi")]:
        for node in _tree(path).body:
            if isinstance(node, ast.ClassDef):
                bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
                found.setdefault(node.name, []).append((path, bases))
    return found


def has_member(name: str, member: str) -> bool:
    """Whether a class of the package, or a base of it, defines the member."""
    return any(
        defines(path, f"{name}.{member}") or any(has_member(base, member) for base in bases)
        for path, bases in classes().get(name, [])
    )


def module_of(dotted: str) -> tuple[Path, str]:
    """The source of the longest part of a dotted name that is a module, and the rest of the name."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        base = ROOT.joinpath(*parts[:length])
        for path in (base.with_suffix(".py"), base.with_suffix(".pyi"), base / "__init__.py"):
            if path.is_file():
                return path, ".".join(parts[length:])
    raise LookupError(dotted)
