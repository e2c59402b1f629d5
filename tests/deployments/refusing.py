"""Runs a program where the kernel refuses some system calls: `python refusing.py CALL,CALL ERROR COMMAND…`.

It is what a container's seccomp profile does, such as that of an old Docker.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

CALLS = {
    "x86_64": {"set_robust_list": 273, "eventfd2": 290},
    "aarch64": {"set_robust_list": 99, "eventfd2": 19},
}
NEW_CALLS = {"pidfd_open": 434, "pidfd_send_signal": 424}
"""With the same number everywhere."""

# From linux/seccomp.h, linux/filter.h and linux/prctl.h.
LOAD_NUMBER, IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, FAIL = 0x7FFF0000, 0x00050000
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, MODE_FILTER = 38, 22, 2


class Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def refuse(names: list[str], number: int) -> None:
    calls = CALLS.get(platform.machine(), {}) | NEW_CALLS
    steps = [(LOAD_NUMBER, 0, 0, 0)]
    for name in names:
        steps += [(IF_EQUAL, 0, 1, calls[name]), (RETURN, 0, 0, FAIL | number)]
    steps.append((RETURN, 0, 0, ALLOW))
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    program = Program(len(steps), ctypes.addressof(code))
    if libc.prctl(PR_SET_SECCOMP, MODE_FILTER, ctypes.byref(program), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "seccomp filters can't be set")


if __name__ == "__main__":
    refuse(sys.argv[1].split(","), getattr(errno, sys.argv[2]))
    os.execvp(sys.argv[3], sys.argv[3:])
