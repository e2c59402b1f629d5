#!/usr/bin/env python
"""Inputs chosen by what they reach in the parsers: `make fuzz`.

`FUZZ_TARGET=delta guided.py FOLDER… [libFuzzer options]`; targets as in `fuzz.py`. What is kept goes
into the first folder. Executable, as merging starts it again.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["mpspmd.control", "mpspmd.codec"]):
    from fuzz import TARGETS


def main() -> None:
    target = TARGETS[os.environ["FUZZ_TARGET"]]()
    if not sys.argv[1].startswith("-"):
        folder = Path(sys.argv[1])
        folder.mkdir(parents=True, exist_ok=True)
        for data in target.inputs():
            (folder / hashlib.sha1(data).hexdigest()).write_bytes(data)
    atheris.Setup(sys.argv, lambda data: target.refuses(data) and None)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
