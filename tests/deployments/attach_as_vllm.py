"""As attach.py, with what vLLM's ranks do about their shared memory."""

from __future__ import annotations

import attach

import mpspmd
from mpspmd.vllm.compat import track_files
from mpspmd.vllm.leftovers import remove


class Attaching(attach.Attaching):
    def __init__(self, ctx: mpspmd.RankContext) -> None:
        super().__init__(ctx)
        self.files = track_files(ctx.remove_at_end)

    def shutdown(self) -> None:
        remove(self.files)


if __name__ == "__main__":
    mpspmd.run(Attaching, attach.main, world_size=2)
