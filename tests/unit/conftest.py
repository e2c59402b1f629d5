"""Engines that many tests use, because a start costs a second or more; and a ring without one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import workers
from hypothesis import HealthCheck, settings
from rings import Scene, make_scene

from mpspmd import Engine, RuntimeConfig

# By default, an example that takes longer than 0.2 s on a busy machine is an error.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


class SharedEngine:
    """One engine for many tests; a new one when a test has broken it."""

    def __init__(self, worker: type, world_size: int) -> None:
        self._worker = worker
        self._world_size = world_size
        self._engine: Engine | None = None

    def get(self) -> Engine:
        if self._engine is None or self._engine.failure is not None:
            self.close()
            self._engine = Engine(
                self._worker,
                world_size=self._world_size,
                config=RuntimeConfig.from_env(digest_requests=True, shutdown_timeout_s=5),
            )
        return self._engine

    def close(self) -> None:
        if self._engine is not None:
            self._engine.shutdown()


@pytest.fixture(scope="session")
def shared_calculators() -> Iterator[SharedEngine]:
    shared = SharedEngine(workers.Calculator, 2)
    yield shared
    shared.close()


@pytest.fixture
def engine(shared_calculators: SharedEngine) -> Engine:
    """Two ranks with a `workers.Calculator` each."""
    return shared_calculators.get()


@pytest.fixture
def go(tmp_path: Path) -> Iterator[Path]:
    """A file that ranks can be told to wait for. It is made at the test's end at the latest."""
    path = tmp_path / "go"
    yield path
    path.touch()


@pytest.fixture
def scene() -> Iterator[Scene]:
    """A ring with one reader."""
    made = make_scene()
    yield made
    made.segment.close()
