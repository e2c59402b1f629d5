"""What every test shares: a clean environment, and patience."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest

Eventually = Callable[..., None]


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
