"""What comes over the control plane's sockets."""

from __future__ import annotations

import msgspec

from mpspmd.control import messages
from mpspmd.exceptions.fault import Fault


class ControlMessages:
    """One message's bytes. Refused: on either side."""

    def close(self) -> None:
        pass

    def inputs(self) -> list[bytes]:
        return [
            messages.encode(message)
            for message in (
                messages.Hello(1),
                messages.Ready(0),
                Fault(1, 7, "execute_model", "ValueError", "no luck", "Traceback …", False, b"x"),
                messages.Stacks(0, 2, "MainThread:\n"),
                messages.Exiting(1, "exit code 3"),
                messages.Dump(3),
                messages.Shutdown(),
            )
        ]

    def refuses(self, data: bytes) -> bool:
        refused = 0
        for decode in (messages.decode_to_engine, messages.decode_to_rank):
            try:
                decode(data)
            except msgspec.DecodeError:
                refused += 1
        return refused == 2
