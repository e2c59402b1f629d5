"""Blocks: the memory of large messages, which the next ones find ready."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from rings import make_scene

from mpspmd._ring import Block

pytestmark = pytest.mark.timeout(240)

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage")
MIB = 1 << 20
LARGE = [4 * MIB + 4096, 5 * MIB + 1, 20 * MIB]


def place_of(block: Block) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(block))


def flags_of_memory(address: int) -> list[str]:
    """What the kernel has been told of the mapping around an address of this process."""
    within = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        head = line.split(maxsplit=1)[0]
        if "-" in head:
            start, end = (int(each, 16) for each in head.split("-"))
            within = start <= address < end
        elif within and head == "VmFlags:":
            return line.split()[1:]
    raise AssertionError(f"nothing is mapped at {address:#x}")


def run(script: str) -> str:
    """A new process, in which no block is idle yet."""
    return subprocess.run(
        [sys.executable, "-c", f"from test_blocks import *\n{script}"],
        cwd=Path(__file__).parent,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(each for each in sys.path if each)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=200,
    ).stdout


@pytest.mark.parametrize("size", [0, 1, 200_000, 4 * MIB - 1, 4 * MIB, *LARGE])
def test_a_block_is_a_writable_copy(size: int) -> None:
    data = os.urandom(size)
    block = Block(data)
    assert (len(block), bytes(block)) == (size, data)
    view = memoryview(block)
    assert not view.readonly
    assert size == 0 or place_of(block) % 16 == 0
    view[:] = bytes(size)
    assert bytes(block) == bytes(size)
    assert data == bytes(memoryview(data))


def test_only_a_buffer_can_be_copied() -> None:
    with pytest.raises(TypeError):
        Block(12)  # type: ignore[arg-type]
    with pytest.raises(BufferError):
        Block(memoryview(b"abcd")[::2])


def test_a_large_one_that_nobody_uses_any_more_is_the_next_one() -> None:
    assert run("""
for size in LARGE:
    first = Block(bytes(size))
    place = place_of(first)
    del first
    data = os.urandom(size - 4096)
    second = Block(data)
    print(place_of(second) == place, bytes(second) == data)
""") == "True True\n" * len(LARGE)  # fmt: skip


@pytest.mark.parametrize("size", LARGE)
def test_whoever_looks_at_a_block_keeps_it(size: int) -> None:
    data = os.urandom(size)
    array = np.frombuffer(memoryview(Block(data))[16:], np.uint8)
    others = [Block(bytes(size)) for _ in range(3)]
    assert array.tobytes() == data[16:]
    assert len({place_of(other) for other in others} | {array.ctypes.data - 16}) == 4


def test_a_block_twice_as_large_as_needed_waits_for_a_larger_message() -> None:
    assert run("""
large = Block(bytes(40 * MIB))
place = place_of(large)
del large
small = Block(bytes(10 * MIB))
large = Block(bytes(39 * MIB))
print(place_of(small) == place, place_of(large) == place)
""") == "False True\n"  # fmt: skip


def waiting_mib() -> int:
    """What the kernel may take of this process, and hasn't yet: the blocks that nobody uses."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    return int(dict(line.split()[:2] for line in lines)["LazyFree:"]) // 1024


def test_what_waits_is_limited_in_bytes_and_in_number() -> None:
    assert run("""
import psutil

def resident():
    return psutil.Process().memory_info().rss // MIB

def added(*sizes):
    before = resident()
    blocks = [Block(bytes(size)) for size in sizes]
    blocks.clear()
    return resident() - before

print(added(*[60 * MIB] * 8) < 256 + 8)
print(added(300 * MIB) < 8)
added(*[4 * MIB] * 60)
print(waiting_mib() <= 16 * 4)
""") == "True\nTrue\nTrue\n"  # fmt: skip


def test_the_kernel_may_take_what_waits() -> None:
    assert run("""
block = Block(bytes(64 * MIB))
del block
print(waiting_mib() >= 60)
""") == "True\n"  # fmt: skip


def test_a_message_for_which_there_is_no_memory_can_be_received_later() -> None:
    assert run("""
import resource
import threading

scene, data = make_scene(), bytes(64 * MIB)
sender = threading.Thread(target=scene.writer.send, args=(1, 7, data))
sender.start()
used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
old = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (used + 16 * MIB, old[1]))
try:
    scene.inbox.recv(20)
except MemoryError:
    print("refused")
resource.setrlimit(resource.RLIMIT_AS, old)
*_, tag, payload = scene.inbox.recv(20)
sender.join()
print(tag, bytes(payload) == data)
""") == "refused\n7 True\n"  # fmt: skip


def test_threads_make_and_drop_blocks_at_the_same_time() -> None:
    wrong: list[int] = []

    def work(number: int) -> None:
        data = bytes([number]) * ((4 + 2 * number) * MIB)
        for _ in range(20):
            blocks = [Block(data), Block(data[:MIB])]
            if bytes(blocks[0]) != data or bytes(blocks[1]) != data[:MIB]:
                wrong.append(number)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    assert not wrong


@pytest.mark.skipif(not HUGE_PAGES.exists(), reason="this kernel has no transparent huge pages")
def test_a_large_message_comes_in_memory_that_may_have_huge_pages() -> None:
    scene = make_scene(capacity=16 * MIB)
    scene.writer.send(1, 0, bytes(9 * MIB))
    message = scene.inbox.recv(20)
    assert message is not None
    payload = message[3]
    assert isinstance(payload, Block)
    assert "hg" in flags_of_memory(place_of(payload) + len(payload) // 2)
