"""An engine whose ranks are stopped when it shuts down, as by `kill -STOP`: prints which were shut down."""

from __future__ import annotations

import os
import signal
import time

import psutil

import mpspmd


class Worker(mpspmd.Worker):
    def shutdown(self) -> None:
        os.write(1, f"rank {self.ctx.rank} is shut down\n".encode())


if __name__ == "__main__":
    with mpspmd.Engine(Worker, world_size=2) as engine:
        for process in map(psutil.Process, engine.pids):
            process.send_signal(signal.SIGSTOP)
            while process.status() != psutil.STATUS_STOPPED:
                time.sleep(0.01)
