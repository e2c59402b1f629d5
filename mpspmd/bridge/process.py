"""The main function of the head's bridge, a process of its own: the engine's Python code can't delay it."""

from __future__ import annotations

import logging
import signal
import sys

from mpspmd import log
from mpspmd.bridge.head import HeadBridge
from mpspmd.bridge.start import BridgeStart
from mpspmd.notice import notice
from mpspmd.processes.quick_exit import exit_quickly
from mpspmd.processes.signals import GROUP_SIGNALS
from mpspmd.transport.descriptor import open_standard_descriptors

logger = logging.getLogger(__name__)

_SWITCH_S = 0.0005


def serve_bridge(start: BridgeStart) -> None:
    """Serves until the run is over, and ends the process. Doesn't return."""
    code = 1
    open_standard_descriptors()
    log.begin_lines_with("[bridge] ")
    try:
        # The engine decides what signals to the whole group mean. The bridge ends with the run.
        for number in start.signals_of_engine | GROUP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
        log.set_level()
        # A thread that has something to send waits so long for one that does less urgent work.
        sys.setswitchinterval(_SWITCH_S)
        bridge = HeadBridge(start)
        start.death_pipe.disarm()
        bridge.run()
        code = 0
    except BaseException as error:
        notice(logger.error, "the bridge failed", exc_info=error)
    finally:
        exit_quickly(code)
