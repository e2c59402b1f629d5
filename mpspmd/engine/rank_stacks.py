"""RankStacks: asks ranks for the stacks of their threads and for their last collectives."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from mpspmd.collective import Collective
from mpspmd.control.messages import Dump, Stacks
from mpspmd.control.plane import EnginePlane
from mpspmd.engine.ranks import Ranks

_ANSWER_S = 0.2
"""How long a rank's control thread may take to answer; a signal goes to those that don't."""

_FAR_ANSWER_S = 1.0
"""As long as the ranks of other nodes may take. There the node sends the signal itself."""


@dataclass(frozen=True)
class Answer:
    """What a rank says of itself."""

    stacks: str
    collectives: tuple[Collective, ...] = ()


class RankStacks:
    """Any thread may ask but the supervisor's, which receives the answers and hands them over."""

    def __init__(self, plane: EnginePlane, ranks: Ranks) -> None:
        self._plane = plane
        self._ranks = ranks
        self._asking = threading.Lock()
        self._change = threading.Condition()
        self._question = 0
        self._answers: dict[int, Answer] = {}

    def ask(self, ranks: Sequence[int], others: Sequence[int] = ()) -> dict[int, Answer]:
        """The stacks of each of these ranks, or why they aren't known, and their collectives. Of `others`
        only those that answer by themselves. Takes at most half a second."""
        with self._asking:
            with self._change:
                self._question += 1
                self._answers = {}
            for rank in (*ranks, *others):
                self._plane.send(rank, Dump(self._question))
            limit_s = _ANSWER_S if self._ranks.remote is None else _FAR_ANSWER_S
            n_asked = len(ranks) + len(others)
            with self._change:
                self._change.wait_for(lambda: len(self._answers) >= n_asked, limit_s)
                answers = dict(self._answers)
            for rank in set(ranks) - answers.keys():
                answers[rank] = Answer(self._ranks.stacks_by_signal(rank))
            return answers

    def take(self, answer: Stacks) -> None:
        """Called by the supervisor when a rank has answered."""
        with self._change:
            if answer.nonce == self._question:  # not a late answer to an earlier one
                self._answers[answer.rank] = Answer(answer.text, answer.collectives)
                self._change.notify_all()
