"""Salvage: what ranks have transferred in steps that failed.

With fault tolerance vLLM goes on after a failed step. A connector reports only once that a request's blocks
have been sent or received. If the report is lost, the blocks are never freed. So what ranks reply to a
failed step, also if it comes late, goes to vLLM's aggregator with the outputs of the next step.
"""

from __future__ import annotations

import pickle
from collections import deque
from typing import Any

from mpspmd.engine.call import NO_REPLY
from mpspmd.engine.future import StepFuture
from mpspmd.errors import RankError
from mpspmd.exceptions.fault import restore_cause
from mpspmd.vllm.compat import defers_outputs, transferred_by

_ATTRIBUTE = "kv_connector_output"
"""The attribute of a ModelRunnerOutput, and of an exception that carries the report to the engine."""

_MAX_FAILED = 64
"""How many failed steps are kept. Without a limit they would pile up if a rank hangs, and never replies."""


class Salvage:
    """In EngineCore's thread."""

    def __init__(self) -> None:
        self._failed: deque[tuple[StepFuture[Any], set[int]]] = deque(maxlen=_MAX_FAILED)
        """Each with the ranks whose replies have been taken."""

    def add(self, step: StepFuture[Any]) -> None:
        """Adds a failed step. Its call must keep late replies."""
        self._failed.append((step, set()))

    def hand_over(self, aggregators: list[Any]) -> None:
        """Gives the reports that have come by now to the aggregator that takes them."""
        outputs = [output for step in list(self._failed) for output in self._take(*step)]
        for aggregator in aggregators:
            if outputs and defers_outputs(aggregator):
                aggregator.ft_defer_kv_connector_outputs(outputs)

    def _take(self, step: StepFuture[Any], seen: set[int]) -> list[Any]:
        replies = step.replies_so_far()
        new = {
            rank: reply
            for rank, reply in enumerate(replies)
            if reply is not NO_REPLY and rank not in seen
        }
        seen.update(new)
        if len(seen) == len(replies):
            self._failed.remove((step, seen))
        outputs = (_transferred(reply) for reply in new.values())
        return [output for output in outputs if output is not None]


def _transferred(reply: Any) -> Any:
    carrier = reply
    if isinstance(reply, RankError):
        restore_cause(reply)
        carrier = reply.__cause__
    return getattr(carrier, _ATTRIBUTE, None)


def carrying(error: Exception, late: Any) -> Exception:
    """In a rank whose late output has failed: an exception that carries the report to the engine."""
    transferred = transferred_by(late)
    if transferred is None:
        return error
    carrier = error if _can_cross(error) else RuntimeError(f"{type(error).__qualname__}: {error}")
    setattr(carrier, _ATTRIBUTE, transferred)
    return carrier


def _can_cross(error: Exception) -> bool:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return False
    return True
