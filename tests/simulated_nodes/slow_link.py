"""python slow_link.py NODE_PID SWITCH_PID PORT DELAY_S LOSS SEED: a cable that delays and loses packets.

It makes two TAP devices, `eth0` in the node and PORT in the switch, and carries packets between them. Each
packet arrives DELAY_S later, or is lost with probability LOSS. `tc netem` does this in the kernel, but many
kernels are built without it.
"""

from __future__ import annotations

import fcntl
import heapq
import os
import random
import select
import struct
import sys
import time

from enter_node import CLONE_NEWNET, set_namespaces

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000


def open_tap(pid: int, name: str) -> int:
    set_namespaces(pid, CLONE_NEWNET)
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return fd


def carry(taps: list[int], delay_s: float, loss: float, chance: random.Random) -> None:
    """Until stdin is closed."""
    packets: list[tuple[float, int, int, bytes]] = []  # (when it arrives, number, where, packet)
    number = 0
    while True:
        wait_s = max(0.0, packets[0][0] - time.monotonic()) if packets else None
        readable, _, _ = select.select([0, *taps], [], [], wait_s)
        if 0 in readable and not os.read(0, 1):
            return
        for tap in readable:
            if tap in taps and (packet := _try(os.read, tap, 65536)) and chance.random() >= loss:
                number += 1
                arrives = time.monotonic() + delay_s
                heapq.heappush(packets, (arrives, number, taps[tap == taps[0]], packet))
        while packets and packets[0][0] <= time.monotonic():
            _, _, tap, packet = heapq.heappop(packets)
            _try(os.write, tap, packet)


def _try(call, *args):  # type: ignore[no-untyped-def]
    """None where the device is down or its queue is full: the packet is lost, as on a real cable."""
    try:
        return call(*args)
    except OSError:
        return None


def main() -> None:
    node, switch, port, delay_s, loss, seed = sys.argv[1:]
    taps = [open_tap(int(node), "eth0"), open_tap(int(switch), port)]
    print("ready", flush=True)
    carry(taps, float(delay_s), float(loss), random.Random(int(seed)))


if __name__ == "__main__":
    main()
