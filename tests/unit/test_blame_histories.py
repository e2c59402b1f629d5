"""All histories of a few events on two ranks obey the rules of `blame`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest
from blamed import (
    BROKEN,
    BUG,
    DESYNC,
    DIED,
    DOWN,
    DUE,
    ENDED,
    EXITS,
    FATAL,
    PENDING,
    READY,
    REAPED,
    RUNNING,
    START_RAISED,
    STARTING,
    UNAWAITED,
    UNAWAITED_FATAL,
)

from mpspmd.engine.blame import judge, next_due
from mpspmd.engine.events import (
    CallFails,
    Died,
    Event,
    Exits,
    Explain,
    Phase,
    Raised,
    Ready,
    RunFails,
    Started,
    StartFails,
    StartRaised,
    State,
    Verdict,
)
from mpspmd.errors import RankDied

ALPHABET: list[Event] = [
    *BUG, *BROKEN, *FATAL, *DESYNC[:1], *UNAWAITED[:1], *UNAWAITED_FATAL[:1], *EXITS, *DIED, *PENDING,
    *ENDED[:1], *REAPED, *READY, *START_RAISED, DUE, DOWN,
]  # fmt: skip


@dataclass
class History:
    """The events so far, and what came of them."""

    state: State
    now: float
    events: list[Event]
    verdicts: list[tuple[int, Verdict]]
    """Each with the number of its event."""
    told: tuple[Verdict, ...] = ()
    """By the last event."""


def histories(begin: State, length: int) -> Iterator[History]:
    """All of up to `length` events. The lists are shared: they change from one to the next."""
    events: list[Event] = []
    verdicts: list[tuple[int, Verdict]] = []

    def extend(before: State, then: float) -> Iterator[History]:
        for event in ALPHABET:
            now = then + 0.001
            if event is DUE and next_due(before) < math.inf:
                now = max(now, next_due(before))
            after, told = judge(before, event, now)
            events.append(event)
            n_before = len(verdicts)
            verdicts.extend((len(events) - 1, verdict) for verdict in told)
            yield History(after, now, events, verdicts, told)
            if len(events) < length:
                yield from extend(after, now)
            del verdicts[n_before:]
            events.pop()

    return extend(begin, 0.0)


@pytest.mark.parametrize("begin", [STARTING, RUNNING], ids=["starting", "running"])
@pytest.mark.parametrize("length", [3, pytest.param(4, marks=pytest.mark.long)])
def test_every_sequence_of_events_on_two_ranks_obeys_the_rules(begin: State, length: int) -> None:
    count = 0
    for history in histories(begin, length):
        count += 1
        # Each rule is about a verdict and what came before it, so that only new verdicts need a look.
        if history.told:
            broken = broken_rule(begin, history.events, history.verdicts)
            assert broken is None, (broken, history.events, history.verdicts)
        assert is_due(history) or is_quiet(begin, history), (history.events, history.state)
    assert count == sum(len(ALPHABET) ** n for n in range(1, length + 1))


def is_due(history: History) -> bool:
    return next_due(history.state) < math.inf


def is_quiet(begin: State, history: History) -> bool:
    """Nothing has to be decided: the run is over, or nobody waits for an error or a reason."""
    if history.state.phase is Phase.OVER:
        return True
    began = -1 if begin is RUNNING else None
    decided = -1
    for at, verdict in history.verdicts:
        if isinstance(verdict, Started):
            began = at
        if isinstance(verdict, CallFails):
            decided = at
    if began is None:
        return False
    since = history.events[max(began, decided) + 1 :]
    return not any(
        isinstance(event, Died) or (isinstance(event, Raised) and event.awaited) for event in since
    )


def broken_rule(
    begin: State, events: Sequence[Event], verdicts: Sequence[tuple[int, Verdict]]
) -> str | None:
    """The rule that this history breaks. It looks at the history alone, and shares nothing with `blame`."""
    final = [(at, v) for at, v in verdicts if isinstance(v, RunFails | StartFails)]
    if len(final) > 1:
        return "a run ends once"
    shutdowns = [at for at, event in enumerate(events) if event is DOWN]
    over = min([at for at, _ in final] + shutdowns, default=len(events))
    began = begin is RUNNING
    deaths: list[Died] = []
    seen: dict[int, list[Raised]] = {}
    ended: set[int] = set()
    by_event: dict[int, list[Verdict]] = {}
    for at, verdict in verdicts:
        by_event.setdefault(at, []).append(verdict)
    for at, event in enumerate(events):
        if isinstance(event, Died) and began and at <= over:
            deaths.append(event)
        if isinstance(event, Raised) and event.awaited and began:
            seen.setdefault(event.step, []).append(event)
        for verdict in by_event.get(at, ()):
            if at > over and not isinstance(verdict, Explain):
                return "after its end a run only explains"
            match verdict:
                case Started():
                    if began or {e.rank for e in events[: at + 1] if isinstance(e, Ready)} != {
                        0,
                        1,
                    }:
                        return "a run begins once, when all ranks are ready"
                    if any(isinstance(e, StartRaised | Died | Exits) for e in events[:at]):
                        return "a failed start doesn't begin"
                    began = True
                case RunFails(error=RankDied() as why):
                    first = deaths[0].error if deaths else None
                    if first is None and not isinstance(event, Exits):
                        return "only a death or an exit is a RankDied"
                    if first is not None and why.rank != first.rank:
                        return "the first to die is to blame"
                case RunFails(error=why):
                    if deaths:
                        return "a death explains every error"
                    asked = [
                        e for e in events[: at + 1] if isinstance(e, Raised) and e.error is why
                    ]
                    if not asked:
                        return "an error was raised by somebody"
                    if asked[0].method != "execute_model" and why.exception != "CodecDesync":  # type: ignore[attr-defined]
                        fatal = [e for e in seen[7] if e.method == "execute_model"]
                        if not fatal:
                            return "only what is fatal ends a run"
                case CallFails(step=step, error=why):
                    if deaths:
                        return "a death explains every error"
                    if step in ended and not seen[step]:
                        return "a call ends once"
                    ended.add(step)
                    errors = [e.error for e in seen.pop(step)]
                    bugs = [e for e in errors if "peer" not in e.message]  # type: ignore[attr-defined]
                    if why is not (bugs or errors)[0]:
                        return "the first error that isn't a collective's is the cause"
                    if event is not DUE:
                        return "errors are held for a moment"
                case StartFails(causes=causes):
                    if began:
                        return "a run that has begun doesn't fail to start"
                    if not causes:
                        return "a failed start has a cause"
    return None
