"""`python -m mpspmd.cli.launch.bootstrap COMMAND…`: what a launched process runs before the user's script.

mpspmd-launch starts this for the engine and for each rank of a run with an engine. It sets up signals,
variables and the handover socket, and then replaces itself with COMMAND by exec.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import sys

from mpspmd.processes.launch import Launch
from mpspmd.processes.signals import GROUP_SIGNALS
from mpspmd.transport.descriptor import above_standard, open_standard_descriptors

WORLD_SIZES = ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "ROLE_WORLD_SIZE")
_RANK_VARIABLES = ("RANK", "LOCAL_RANK", "ROLE_RANK", *WORLD_SIZES)


def main() -> None:
    open_standard_descriptors()
    launch = Launch.take()
    assert launch is not None
    if launch.is_rank:
        # The engine handles these signals for all ranks. SIGTERM keeps its default action, so that the
        # launcher can end a rank that hasn't connected to the engine yet.
        for number in GROUP_SIGNALS - {signal.SIGTERM}:
            signal.signal(number, signal.SIG_IGN)
    else:
        # The agent takes the engine for one more rank and sets these. The launcher's parent may have set
        # them, too.
        for variable in _RANK_VARIABLES:
            os.environ.pop(variable, None)
        launch = dataclasses.replace(launch, listener=_listen(launch))
    launch.put(os.environ)
    try:
        os.execvp(sys.argv[1], sys.argv[1:])
    except OSError as error:
        launch.untaken.unlink(
            missing_ok=True
        )  # there is no script that could have called mpspmd.run()
        print(f"mpspmd-launch: can't run {sys.argv[1]}: {error.strerror}", file=sys.stderr)
        sys.exit(127 if isinstance(error, FileNotFoundError) else 126)


def _listen(launch: Launch) -> int:
    """The descriptor of the handover socket, which the engine's script inherits.

    It listens before the script begins: a script that ends without calling mpspmd.run() closes it, and so
    the ranks' connections fail instead of waiting for ever.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(launch.socket)
    listener.listen(launch.world_size)
    fd = above_standard(listener.detach())
    os.set_inheritable(fd, True)
    return fd


if __name__ == "__main__":
    main()
