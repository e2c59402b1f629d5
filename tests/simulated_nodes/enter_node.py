"""python enter_node.py PID COMMAND…: runs a command in the namespaces of process PID, and ends as it does.

`nsenter` would die of a Ctrl-C that the command handles, and hide the signal that ended the command.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWPID, CLONE_NEWNET = 0x20000000, 0x40000000
ALL = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET


def set_namespaces(pid: int, kinds: int) -> None:
    """This thread's namespaces of these kinds are those of process `pid` from now on."""
    pidfd = os.pidfd_open(pid)
    try:
        set_namespace(pidfd, kinds)
    finally:
        os.close(pidfd)


def set_namespace(fd: int, kinds: int) -> None:
    """`fd` is a pidfd, or a namespace of that kind."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, kinds) != 0:
        raise OSError(ctypes.get_errno(), f"setns: {os.strerror(ctypes.get_errno())}")


def main() -> None:
    folder = os.getcwd()
    set_namespaces(int(sys.argv[1]), ALL)
    os.chdir(folder)  # entering a mount namespace changes to its root
    child = os.fork()  # only a child is in the new PID namespace
    if child == 0:
        os.execvp(sys.argv[2], sys.argv[2:])
    handled = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in handled:
        signal.signal(number, signal.SIG_IGN)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for number in handled:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(status))
    os._exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
