"""The table of results: on the terminal, and for a document."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks.machine import describe
from benchmarks.results import Missing, Results, Row

_FILE_WIDTH = 160  # where stdout is no terminal


class Column(NamedTuple):
    heading: str
    cell: Callable[[Row], str]
    right: bool = True


def text(heading: str, key: str) -> Column:
    return Column(heading, lambda row: str(row[key]), right=False)


def figure(heading: str, key: str, digits: int = 1) -> Column:
    """A number with so many digits after the point; a dash if the row has none."""

    def cell(row: Row) -> str:
        value = row.get(key)
        return "–" if value is None else f"{value:,.{digits}f}"  # noqa: RUF001

    return Column(heading, cell)


def size(heading: str, key: str) -> Column:
    return Column(heading, lambda row: size_text(row[key]))


def mebibytes(heading: str, key: str) -> Column:
    return Column(heading, lambda row: f"{row[key] / 2**20:,.1f}")


def size_text(n_bytes: int) -> str:
    for unit, name in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if n_bytes >= unit and n_bytes % unit == 0:
            return f"{n_bytes // unit:,} {name}"
    return f"{n_bytes:,} B"


def ratio(rows: Sequence[Row], key: str, reference: str, same: Sequence[str]) -> Column:
    """The figure divided by that of the `reference` transport, in the row with the same `same` keys."""
    base = _figures_of(rows, key, "transport", reference, same)
    return Column(f"vs {reference}", lambda row: _times(row[key], base(row)))


def faster(
    rows: Sequence[Row], key: str, reference: str, same: Sequence[str], heading: str
) -> Column:
    """The `reference` backend's figure, in the row with the same `same` keys, divided by this figure."""
    base = _figures_of(rows, key, "backend", reference, same)
    return Column(heading, lambda row: _times(base(row), row[key]))


def _figures_of(
    rows: Sequence[Row], key: str, by: str, reference: str, same: Sequence[str]
) -> Callable[[Row], float | None]:
    figures = {tuple(row[name] for name in same): row[key] for row in rows if row[by] == reference}
    return lambda row: figures.get(tuple(row[name] for name in same))


def _times(value: float | None, base: float | None) -> str:
    return f"{value / base:.1f}×" if value and base else ""  # noqa: RUF001


def print_table(
    results: Results, columns: Sequence[Column], title: str, caption: str, group: Sequence[str]
) -> None:
    """Prints to stdout. A line divides rows that differ in the `group` keys."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    console.print(describe(results["machine"]))
    table = Table(title=title, caption=caption)
    for column in columns:
        table.add_column(column.heading, justify="right" if column.right else "left")
    for _, rows in groupby(results["results"], key=lambda row: [row[name] for name in group]):
        for row in rows:
            table.add_row(*(column.cell(row) for column in columns))
        table.add_section()
    for missing in results["missing"]:
        table.add_row(*(_missing_cell(column, missing) for column in columns))
    console.print(table)
    for missing in results["missing"]:
        console.print(f"{missing['name']} was not measured: {missing['why']}", markup=False)


def _missing_cell(column: Column, missing: Missing) -> str:
    words = {"transport": missing["name"], "version": missing["why"].partition(":")[0]}
    return words.get(column.heading, "–")  # noqa: RUF001


def markdown(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    lines = [
        [column.heading for column in columns],
        ["---:" if column.right else "---" for column in columns],
        *([column.cell(row) for column in columns] for row in rows),
    ]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
