"""A program that is started without standard descriptors doesn't give their numbers to the run's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from traces import Traces

_CLOSED = ("<&-", ">&-", "2>&-", "<&- 2>&-", "<&- >&- 2>&-")


@pytest.mark.parametrize("closed", _CLOSED)
def test_what_is_printed_to_a_closed_descriptor_harms_nobody(
    closed: str, traces: Traces, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    stranger = next(tmp_path.glob("stranger-*.txt"))
    traces.run("descriptors.py", str(out), str(stranger), after=closed)
    found = json.loads(out.read_text())
    out.unlink()
    assert found["replies"] == [0, 1, 2]
    for low in (found["engine"], found["rank"]):
        # As many as were closed; standard input is /dev/null in any case.
        nulls = {redirection[0] for redirection in closed.split()}
        assert low.count("/dev/null") == len(nulls | {"<"}), low


def test_a_launched_run_neither(traces: Traces, tmp_path: Path) -> None:
    out = tmp_path / "out"
    stranger = next(tmp_path.glob("stranger-*.txt"))
    script = str(Path(__file__).with_name("descriptors.py"))
    traces.run("mpspmd-launch", "-n", "1", script, str(out), str(stranger), after="<&- >&- 2>&-")
    found = json.loads(out.read_text())
    out.unlink()
    assert found["replies"] == [0, 1, 2]
    assert found["engine"] == ["/dev/null"] * 3
    # A launched rank's output are pipes of the launcher's.
    assert found["rank"][0] == "/dev/null"


_OUR_OWN = """
import os, sys
report = os.dup2(1, 50)
for fd in range(3): os.close(fd)
from pathlib import Path
from mpspmd.config import RuntimeConfig
from mpspmd.control.plane import _Mailbox
from mpspmd.processes.janitor import Janitor
from mpspmd.processes.death_pipe import DeathPipe
from mpspmd.processes.run_dir import RunDir
from mpspmd.processes.stacks import StackFile
from mpspmd.transport.channel import ChannelSegments, EngineChannel
janitor = Janitor([sys.argv[1]])
run_dir = RunDir(sys.argv[1], janitor.remove_at_end)
kept = [DeathPipe(), StackFile(), _Mailbox(), ChannelSegments.create(1, RuntimeConfig())]
kept.append(EngineChannel(kept[-1]))
low = [fd for fd in range(3) if os.path.exists(f"/proc/self/fd/{fd}")]
os.write(report, repr(low).encode())
run_dir.remove()
"""


def test_no_descriptor_of_ours_is_a_standard_one_even_if_those_are_closed(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _OUR_OWN, str(tmp_path)],
        stdout=subprocess.PIPE,
        timeout=60,
        env=os.environ,
    )
    assert done.stdout == b"[]"
