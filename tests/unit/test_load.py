"""Large messages, and many at once: nothing is lost, nothing waits for ever."""

from __future__ import annotations

import numpy as np
import pytest
import workers

from mpspmd import Engine, RuntimeConfig
from mpspmd.transport.channel import ChannelSegments

pytestmark = [pytest.mark.timeout(240), pytest.mark.long]

_MIB = 1 << 20


def test_all_rings_of_eight_ranks_take_less_than_48_mib() -> None:
    segments = ChannelSegments.create(8, RuntimeConfig.from_env())
    try:
        assert segments.size < 48 * _MIB
    finally:
        segments.close()


def test_a_hundred_requests_of_8_mib_each_way_do_not_deadlock(engine: Engine) -> None:
    array = np.arange(_MIB, dtype=np.int64)
    futures = []
    for i in range(100):
        array[0] = i
        futures.append(engine.collective_rpc("echo", args=(array,), non_block=True))
    for i, future in enumerate(futures):
        for reply in future.result():
            assert reply[0] == i
            assert np.array_equal(reply[1:], array[1:])
    assert engine.collective_rpc("rank") == [0, 1]


def test_both_directions_stay_full_with_a_small_ring_and_many_threads() -> None:
    from concurrent.futures import ThreadPoolExecutor

    config = RuntimeConfig.from_env(request_ring_bytes=1 << 16, reply_ring_bytes=1 << 16)
    with Engine(workers.Calculator, world_size=2, config=config) as engine:

        def ask(thread: int) -> None:
            for i in range(20):
                value = np.full(10_000 * (i % 7), thread * 100 + i)
                for reply in engine.collective_rpc("echo", args=(value,)):
                    assert np.array_equal(reply, value)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(ask, range(4)))


def test_64_mib_reach_four_ranks_intact() -> None:
    array = np.random.default_rng(1).integers(0, 1 << 62, 8 * _MIB)
    with Engine(workers.Calculator, world_size=4) as engine:
        expected = int(np.bitwise_xor.reduce(array)), int(array.sum() % (1 << 61))

        def fingerprint(worker: workers.Calculator, received: np.ndarray) -> tuple[int, int]:
            return int(np.bitwise_xor.reduce(received)), int(received.sum() % (1 << 61))

        assert engine.collective_rpc(fingerprint, args=(array,)) == [expected] * 4
        assert ChannelSegments.bytes_for(4, engine.config) < 48 * _MIB
