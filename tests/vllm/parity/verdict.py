"""Verdict: what two records say of a feature on `mp-spmd`, compared with `mp`. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from parity.record import Record

Kind = Literal["same", "better", "worse", "n. a."]

_SLOWER, _SLOWER_S = 2.0, 5.0
"""A start or an end that takes twice as long, and this many seconds more, is worse: machines are noisy."""


_BUSY = 1.5
"""Load of a core at which times aren't compared."""


@dataclass(frozen=True)
class Verdict:
    kind: Kind
    how: str = ""


def judge(mp: Record, ours: Record, mp_again: Record | None = None, right: Any = None) -> Verdict:
    """`mp_again` is a second run of `mp`, where its values differ from ours; `right` the right value,
    where it is known."""
    reason = mp.not_applicable or ours.not_applicable
    if reason:
        return Verdict("n. a.", reason)
    if mp.error and ours.error and mp.error[0] == ours.error[0]:
        # An error that a row expects is a value. Of a feature that fails on both, nothing was compared.
        return Verdict("n. a.", f"both raise {mp.error[0]}: {_in_short(ours.error[1])}")
    points = list(_points(mp, ours, mp_again, right))
    for kind in ("worse", "better"):
        hows = [how for found, how in points if found in (kind, "same")]
        if any(found == kind for found, _ in points):
            return Verdict(kind, "; ".join(hows))  # type: ignore[arg-type]
    return Verdict("same", "; ".join(how for _, how in points))


def _points(
    mp: Record, ours: Record, again: Record | None, right: Any
) -> Iterator[tuple[Kind, str]]:
    if right is not None and mp.value != ours.value == right:
        yield "better", f"right answers; mp's are wrong: {_difference(right, mp.value, 'expected')}"
    else:
        yield from _of_outcome(mp, ours, again)
    yield from _of_rest("files", mp.files, ours.files)
    yield from _of_rest("processes", mp.processes, ours.processes)
    if any(each.load is None or each.load > _BUSY for each in (mp, ours)):
        return
    for what, theirs_s, ours_s in (
        ("starts", mp.start_s, ours.start_s),
        ("stops", mp.stop_s, ours.stop_s),
    ):
        if theirs_s is None or ours_s is None:
            continue
        told = f"{what} in {ours_s:.1f} s, mp in {theirs_s:.1f} s"
        if _is_longer(ours_s, theirs_s):
            yield "worse", told
        elif _is_longer(theirs_s, ours_s):
            yield "better", told


def _is_longer(one_s: float, other_s: float) -> bool:
    return one_s > _SLOWER * other_s and one_s > other_s + _SLOWER_S


def _of_outcome(mp: Record, ours: Record, again: Record | None) -> Iterator[tuple[Kind, str]]:
    if mp.error and ours.error:
        yield "worse", f"raises {ours.error[0]}, mp {mp.error[0]}"
    elif ours.error:
        yield "worse", f"raises {ours.error[0]}: {_first_line(ours.error[1])}"
    elif mp.error:
        yield "better", f"works, where mp raises {mp.error[0]}: {_first_line(mp.error[1])}"
    elif mp.value != ours.value:
        if again is not None and again.value != mp.value:
            yield "same", "mp's own values differ from run to run"
        else:
            yield "worse", f"other values: {_difference(mp.value, ours.value)}"


def _of_rest(what: str, theirs: list[str], ours: list[str]) -> Iterator[tuple[Kind, str]]:
    if len(ours) > len(theirs):
        yield "worse", f"leaves {len(ours)} {what}, mp {len(theirs)}"
    elif len(ours) < len(theirs):
        yield "better", f"leaves {len(ours)} {what}, mp {len(theirs)}"


def _difference(wanted: object, got: object, whose: str = "with mp", where: str = "") -> str:
    """Where two values differ first."""
    if isinstance(wanted, dict) and isinstance(got, dict) and wanted.keys() == got.keys():
        for key in wanted:
            if wanted[key] != got[key]:
                return _difference(wanted[key], got[key], whose, f"{where}.{key}")
    if isinstance(wanted, list) and isinstance(got, list) and len(wanted) == len(got):
        for i, (one, other) in enumerate(zip(wanted, got, strict=True)):
            if one != other:
                return _difference(one, other, whose, f"{where}[{i}]")
    place = where.lstrip(".") or "it"
    return f"{place} is {_first_line(repr(got))}, {whose} {_first_line(repr(wanted))}"


def _first_line(text: str) -> str:
    line = next((line for line in text.splitlines() if line.strip()), "")
    return line if len(line) < 100 else line[:97] + "…"


def _in_short(text: str) -> str:
    """The first paragraph, in one line: a reason may stand in any of its lines."""
    line = " ".join(text.partition("\n\n")[0].split())
    return line if len(line) < 250 else line[:247] + "…"
