"""Report: writes a document of the results, with tables and pictures."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import aims
from benchmarks.machine import describe
from benchmarks.pictures import draw
from benchmarks.results import Results
from benchmarks.table import markdown

_INTRODUCTION = """# Benchmarks

A program writes this file: `make bench` that of the channels, `make bench-vllm` that of vLLM's steps, and
`make gpu-check` that of a machine with GPUs.
The figures are those of one run of each command below, on one machine. Latencies are in microseconds.
In each round every transport is measured in turn, while the processes of all others are stopped;
figures are medians over the rounds. Compare figures within a table, not between machines: other programs
on the machine, and the cores on which the kernel puts two processes, change every figure. Each table gives
the load average before its run. If that was above the number of cores, trust only the ratios.
"""


class Section(NamedTuple):
    title: str
    meaning: str
    command: str
    results: Results


def write(document: Path, sections: Mapping[str, Section], first: Sequence[str] = ()) -> None:
    """Writes the document, and its pictures into a folder beside it with the same name. `first` stands
    before the sections."""
    pictures = document.with_suffix("")
    pictures.mkdir(parents=True, exist_ok=True)
    parts = [_INTRODUCTION, *_where(sections), *first]
    found = aims.reached({name: section.results for name, section in sections.items()})
    if found:
        parts += ["## What was aimed at\n", markdown(aims.COLUMNS, found) + "\n"]
    for name, section in sections.items():
        picture = pictures / f"{name}.png"
        draw(section.results, picture)
        parts += _section(section, f"{pictures.name}/{picture.name}")
    document.write_text("\n".join(parts))


def _where(sections: Mapping[str, Section]) -> list[str]:
    """The machine and the versions, of the first section."""
    for section in sections.values():
        machine = section.results["machine"]
        versions = ", ".join(
            f"{name} {version or 'not installed'}" for name, version in machine["versions"].items()
        )
        return [f"{describe(machine)}.\n", f"{versions}.\n"]
    return []


def _section(section: Section, picture: str) -> list[str]:
    results = section.results
    tool = importlib.import_module(f"benchmarks.{results['benchmark']}")
    machine = results["machine"]
    lines = [
        f"## {section.title}\n",
        f"{section.meaning}\n",
        f"`{section.command}`, {machine['date']}, load {machine['load_average'][0]} before; "
        f"{results['rounds']} rounds.\n",
        f"![{section.title}]({picture})\n",
        markdown(tool.columns(results), results["results"]) + "\n",
    ]
    if left := sorted(
        set(results["settings"].get("ranks", ())) - {row.get("ranks") for row in results["results"]}
    ):
        lines.append(f"The run was stopped before ranks {', '.join(map(str, left))}.\n")
    if "fits" in results:
        lines += [*(f"- `{line}`" for line in tool.growth_lines(results)), ""]
    lines += [f"- `{one['name']}` was not measured: {one['why']}" for one in results["missing"]]
    return [*lines, ""] if results["missing"] else lines
