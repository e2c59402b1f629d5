"""Engine and ranks that log: `log_lines.py [configured]`."""

from __future__ import annotations

import logging
import sys

import mpspmd


class Talker(mpspmd.Worker):
    def __init__(self, ctx: mpspmd.RankContext, configured: bool) -> None:
        super().__init__(ctx)
        if configured:
            logging.basicConfig(format="own format: %(message)s")

    def execute_model(self) -> None:
        logging.getLogger("the.program").warning("first line\nsecond line")
        logging.getLogger("mpspmd.rank.loop").info("in detail")
        logging.getLogger("the.program").info("the program's detail")
        try:
            raise RuntimeError("the end of a traceback")
        except RuntimeError:
            logging.getLogger("mpspmd.rank.loop").exception("a method has raised")


def main(engine: mpspmd.Engine) -> None:
    engine.collective_rpc("execute_model")
    logging.getLogger("mpspmd.engine").warning("from the engine")
    logging.getLogger("mpspmd.engine").info("the engine's detail")


if __name__ == "__main__":
    mpspmd.run(Talker, main, world_size=2, args=("configured" in sys.argv,))
