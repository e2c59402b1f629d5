"""A process that gevent or eventlet has patched is refused: an engine in it would wait for ever."""

from __future__ import annotations

import pytest
from traces import Traces

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize("what", ["threads", "poll", "read"])
def test_an_engine_is_refused_with_the_remedy(traces: Traces, what: str) -> None:
    done = traces.run("green.py", what, timeout_s=15)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("mpspmd.errors.ConfigError: ")
    assert "gevent.monkey.patch_all(thread=False)" in last
    assert "eventlet.monkey_patch(thread=False, select=False, os=False)" in last
