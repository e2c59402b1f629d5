"""StepSlot: what a rank keeps of a step between its forward pass and its sampling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mpspmd.errors import StepRefused, text_of
from mpspmd.rank.worker import LATER


class StepSlot:
    """One step at a time, whose `execute_model` the engine has answered itself. The rank's main thread.

    `epoch` counts the failures that the engine's caller has been told of. The steps that were sent before
    that count on the failed one: they are refused.
    """

    def __init__(self) -> None:
        self._output: Any = None
        self._failure = ""
        self._epoch = 0

    def execute(self, run: Callable[[Any], Any], scheduler_output: Any, epoch: int) -> Any:
        """Runs the forward pass. What it raises is the whole step's reply; what it returns waits."""
        self._output = None
        if self._failure and epoch == self._epoch:
            raise StepRefused(f"not run, because an earlier step has failed here: {self._failure}")
        self._failure = ""
        self._epoch = epoch
        self._output = self._run(run, scheduler_output)
        return LATER

    def sample(self, run: Callable[[Any], Any], grammar_output: Any) -> Any:
        """The step's output: the sampled one, or what `execute` has had already."""
        if self._failure:
            return LATER  # execute's exception was the reply
        output, self._output = self._output, None
        return self._run(run, grammar_output) if output is None else output

    def _run(self, run: Callable[[Any], Any], argument: Any) -> Any:
        try:
            return run(argument)
        except BaseException as error:
            # The exception itself would keep its frames, and tensors in them.
            self._failure = f"{type(error).__qualname__}: {text_of(error)}"
            raise
