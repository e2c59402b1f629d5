"""StepSlot: what a rank keeps of a step between the forward pass and the sampling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mpspmd.errors import StepRefused, text_of
from mpspmd.rank.worker import LATER


class StepSlot:
    """Holds one step at a time whose `execute_model` the engine has answered itself. Main thread of a rank.

    `epoch` counts the failures that the engine's caller knows of. Steps that were sent before the caller
    knew of a failure rely on the failed step, and are refused.
    """

    def __init__(self) -> None:
        self._output: Any = None
        self._failure = ""
        self._epoch = 0

    def execute(self, run: Callable[[Any], Any], scheduler_output: Any, epoch: int) -> Any:
        """Runs the forward pass. Its exception is the whole step's reply; `sample` returns its result."""
        self._output = None
        if self._failure and epoch == self._epoch:
            raise StepRefused(f"not run, because an earlier step has failed here: {self._failure}")
        self._failure = ""
        self._epoch = epoch
        self._output = self._run(run, scheduler_output)
        return LATER

    def sample(self, run: Callable[[Any], Any], grammar_output: Any) -> Any:
        """The step's output: what the forward pass returned, or else what `run` samples."""
        if self._failure:
            return LATER  # the exception of `execute` was the reply
        output, self._output = self._output, None
        return self._run(run, grammar_output) if output is None else output

    def _run(self, run: Callable[[Any], Any], argument: Any) -> Any:
        try:
            return run(argument)
        except BaseException as error:
            # Keep its text only: the exception refers to its frames, and these to tensors.
            self._failure = f"{type(error).__qualname__}: {text_of(error)}"
            raise
