"""Flag: what threads wait for, one of which may be the main thread."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from interrupting import interrupted_at

from mpspmd.turns import Flag

pytestmark = pytest.mark.timeout(30)


def test_a_wait_ends_when_the_flag_is_set() -> None:
    flag = Flag()
    assert not flag.wait(0.01)
    with ThreadPoolExecutor(2) as pool:
        waits = [pool.submit(flag.wait, timeout_s) for timeout_s in (None, 20)]
        flag.set()
        assert [wait.result() for wait in waits] == [True, True]
    assert flag.wait(0)
    flag.clear()
    assert not flag.wait(0)


@pytest.mark.parametrize("is_set", [False, True])
def test_a_thread_that_is_interrupted_while_it_waits_keeps_no_other_from_it(is_set: bool) -> None:
    number, interrupted = 0, True
    with ThreadPoolExecutor(2) as pool:
        while interrupted:
            flag = Flag()
            if is_set:
                flag.set()
            interrupted = interrupted_at(lambda flag=flag: flag.wait(0.001), number)
            other = pool.submit(flag.wait, 10)
            pool.submit(flag.set).result(10)
            assert other.result() is True, number
            number += 1
    assert number > 1


def test_a_wait_sees_within_a_slice_what_nobody_has_told_it() -> None:
    """The handler of a signal may interrupt the thread that sets the flag before it wakes others."""
    flag = Flag()
    woken = threading.Event()
    waiter = threading.Thread(target=lambda: flag.wait() and woken.set())
    waiter.start()
    while not flag._waiting:
        time.sleep(0.001)
    flag.is_set = True
    assert woken.wait(10)
    waiter.join()
