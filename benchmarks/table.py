"""The table of results, for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby

from rich.console import Console
from rich.table import Table

from benchmarks.results import Results, Row

_REFERENCE = "mpspmd"
_REPLIES = {"all": "every rank replies", "rank0": "rank 0 replies"}


def print_table(results: Results, size_bytes: int, reply: str) -> None:
    """On stdout."""
    console = Console(highlight=False)
    machine = results["machine"]
    console.print(
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_bytes'] / 2**30:.0f} GiB, "
        f"{machine['kernel']}, Python {machine['python']}, load {machine['load_average'][0]}"
    )
    table = Table(
        title=f"Round trip of {size_bytes:,} bytes, µs; {_REPLIES[reply]}",
        caption=f"medians of {results['rounds']} rounds of {results['messages_per_round']:,}; "
        "ratios of the p50",
    )
    for heading in ("ranks", "transport", "version"):
        table.add_column(heading)
    for heading in ("mean", "p50", "p99", f"vs {_REFERENCE}"):
        table.add_column(heading, justify="right")
    reference = {
        row["ranks"]: row["p50_us"] for row in results["results"] if row["transport"] == _REFERENCE
    }
    for _, rows in groupby(results["results"], key=lambda row: row["ranks"]):
        for row in rows:
            table.add_row(*_cells(row, reference))
        table.add_section()
    for missing in results["missing"]:
        table.add_row("", missing["name"], "missing", "–", "–", "–", "–")  # noqa: RUF001
    console.print(table)
    for missing in results["missing"]:
        console.print(f"{missing['name']} was not measured: {missing['why']}", markup=False)


def _cells(row: Row, reference: Mapping[int, float]) -> tuple[str, ...]:
    base = reference.get(row["ranks"])
    return (
        str(row["ranks"]),
        row["transport"],
        row["version"],
        *(f"{value:,.1f}" for value in (row["mean_us"], row["p50_us"], row["p99_us"])),
        "" if base is None else f"{row['p50_us'] / base:.1f}×",  # noqa: RUF001
    )
