"""What every test shares: a clean environment, and patience."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

Eventually = Callable[..., None]


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):  # pytest-xdist has started this process beside others
        from side_by_side import take_own_folders

        config.option.basetemp = take_own_folders(config.workerinput["own_folder"])


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        from side_by_side import sort

        sort(items)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """In the process that pytest-xdist's processes report to, before it starts each of them."""
    # A short name: sockets lie in it, and a socket's path has 107 bytes.
    folder = node.workerinput["own_folder"] = tempfile.mkdtemp(prefix="own-")
    node.config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """For `-n auto`."""
    from side_by_side import number_of_processes

    return number_of_processes()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from side_by_side import Scheduling

    return Scheduling(config, log)


@pytest.fixture(scope="session", autouse=True)
def no_settings_from_outside() -> Iterator[None]:
    """MPSPMD_* variables of whoever runs the tests change nothing, but for the way of waiting:
    `make soak` runs the tests under each.
    """
    with pytest.MonkeyPatch.context() as patch:
        for variable in [name for name in os.environ if name.startswith("MPSPMD_")]:
            if variable != "MPSPMD_WAIT":
                patch.delenv(variable)
        yield


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """A shell's background job ignores Ctrl-C, and so does all that it starts."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def eventually() -> Eventually:
    """Waits until a condition holds; a failed test when it doesn't within `seconds`."""

    def wait(condition: Callable[[], object], what: str, seconds: float = 20.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"not within {seconds:g} s: {what}")
            time.sleep(0.005)

    return wait
