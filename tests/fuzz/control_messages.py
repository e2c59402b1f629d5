"""What comes over the control plane's sockets."""

from __future__ import annotations

import msgspec

from mpspmd.control import messages


class ControlMessages:
    """One message's bytes. Refused: on either side."""

    def close(self) -> None:
        pass

    def inputs(self) -> list[bytes]:
        return [
            messages.encode(message)
            for message in (
                messages.Hello(1, 1234),
                messages.Ready(0, 1.5),
                messages.Fault(1, "execute_model", 7, "ValueError", "no luck", "Traceback …"),
                messages.Pong(1, 5),
                messages.Stacks(0, 2, "MainThread:\n"),
                messages.Leaving(1, "exit code 3"),
                messages.Goodbye(2),
                messages.Ping(1),
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
