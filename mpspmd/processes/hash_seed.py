"""The hash seed: str hashes are equal on all ranks of a run.

Otherwise a key that is made of `hash(text)` differs between ranks, and so does the order of a set, which
may be the order of collectives. The interpreter reads the seed from PYTHONHASHSEED when it starts (not with
`python -I` or `-E`). Our seed is new in each run, because an attacker who knows it can make keys collide.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterator, MutableMapping

VARIABLE = "PYTHONHASHSEED"


def seed_of(secret: str) -> str:
    """A seed that follows from the secret."""
    number = int.from_bytes(hashlib.blake2b(secret.encode(), digest_size=4).digest())
    return str(number or 1)  # 0 would turn the randomization off


def new_seed() -> str:
    return seed_of(secrets.token_hex())


def own_seed() -> str:
    """A new seed, or "" if the user has set one."""
    return "" if os.environ.get(VARIABLE) else new_seed()


@contextlib.contextmanager
def one_seed(seed: str = "", environ: MutableMapping[str, str] = os.environ) -> Iterator[str]:
    """Processes that the body starts have the same seed. Yields it, or "" if the user has set one.

    `seed`: the one that other nodes have.
    """
    before = environ.get(VARIABLE)
    if before and seed in ("", before):
        yield ""
        return
    seed = environ[VARIABLE] = seed or new_seed()
    try:
        yield seed
    finally:
        del environ[VARIABLE]
        if before is not None:
            environ[VARIABLE] = before


def forget(seed: str, environ: MutableMapping[str, str] = os.environ) -> None:
    """In a process that was started with our seed: removes it from the environment.

    vLLM derives the names of cached blocks from this variable, and the engine hasn't set it.
    """
    if seed and environ.get(VARIABLE) == seed:
        del environ[VARIABLE]
