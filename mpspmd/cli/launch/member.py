"""`python -m mpspmd.cli.launch.member COMMAND…`: what mpspmd-launch starts for the engine and each rank.

It prepares the process, and becomes the command.
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
        # They are the engine's to handle, for all. The launcher ends ranks that aren't ready yet.
        for number in GROUP_SIGNALS - {signal.SIGTERM}:
            signal.signal(number, signal.SIG_IGN)
    else:
        # From the agent, for which it is one more rank, or from where the launcher was started.
        for variable in _RANK_VARIABLES:
            os.environ.pop(variable, None)
        # Listening from now on, so that ranks notice when the engine ends without having started them.
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(launch.socket)
        listener.listen(launch.world_size)
        kept = above_standard(listener.detach())
        os.set_inheritable(kept, True)
        launch = dataclasses.replace(launch, listener=kept)
    launch.put(os.environ)
    try:
        os.execvp(sys.argv[1], sys.argv[1:])
    except OSError as error:
        print(f"mpspmd-launch: can't run {sys.argv[1]}: {error.strerror}", file=sys.stderr)
        sys.exit(127 if isinstance(error, FileNotFoundError) else 126)


if __name__ == "__main__":
    main()
