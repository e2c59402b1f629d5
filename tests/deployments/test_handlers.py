"""A signal's handler that uses the engine."""

from __future__ import annotations

from traces import Traces


def test_a_handler_is_refused_the_engine_to_which_its_thread_is_sending(traces: Traces) -> None:
    done = traces.run("handler.py")
    assert done.stdout == "a signal's handler or a destructor may not use an engine\n", done.stderr
    assert (done.returncode, done.stderr) == (0, "")
