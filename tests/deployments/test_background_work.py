"""Work in threads of a rank when its run ends."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from traces import Traces

pytestmark = pytest.mark.timeout(90)


def _marks(folder: Path, pattern: str) -> list[str]:
    """Names of files, which go away, so that they aren't taken for something left behind."""
    found = sorted(folder.glob(pattern))
    texts = [f"{path.name} {path.read_text()}".strip() for path in found]
    for path in found:
        path.unlink()
    return texts


@pytest.mark.parametrize(
    ("how", "files"), [("pool", ["0", "1", "2"]), ("thread", ["0"])], ids=["pool", "thread"]
)
@pytest.mark.parametrize(
    "launcher", [(), ("mpspmd-launch", "-n", "2")], ids=["spawned", "launched"]
)
def test_it_is_finished_and_exit_functions_come_after_it(
    traces: Traces, launcher: tuple[str, ...], how: str, files: list[str]
) -> None:
    here = Path(__file__).parent
    program = (*launcher, str(here / "background.py")) if launcher else ("background.py",)
    done = traces.run(*program, how)
    assert (done.returncode, done.stderr) == (0, "")
    for rank in range(2):
        names = [f"{rank}-{name}" for name in files]
        assert _marks(traces.folder, f"{rank}-*") == names
        assert _marks(traces.folder, f"end-{rank}") == [f"end-{rank} {' '.join(names)}"]


def test_a_thread_that_never_ends_holds_no_rank_beyond_the_grace(traces: Traces) -> None:
    began = time.monotonic()
    done = traces.run("background.py", "never", MPSPMD_SHUTDOWN_TIMEOUT_S="0.5")
    assert time.monotonic() - began < 30
    assert done.returncode == 0
    assert "a thread that isn't a daemon, has taken longer than 0.5 s" in done.stderr
    assert _marks(traces.folder, "end-*") == []


def test_it_is_finished_in_vllms_engine_core_too(traces: Traces) -> None:
    done = traces.run("engine_core_work.py")
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")
    assert _marks(traces.folder, "done") == ["done"]
