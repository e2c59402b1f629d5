"""The hash seed: all ranks of a run hash texts alike.

Otherwise a key that is made of `hash(text)` differs from rank to rank, and so does the order of a set, in
which ranks may enter collectives. The interpreter reads the seed once, from PYTHONHASHSEED, when it begins
(not with `python -I` or `-E`). A seed of our own differs from run to run, because a known one helps those
who flood a server with colliding keys.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterator, MutableMapping

VARIABLE = "PYTHONHASHSEED"


def seed_of(secret: str) -> str:
    """The seed of all who know the secret."""
    number = int.from_bytes(hashlib.blake2b(secret.encode(), digest_size=4).digest())
    return str(number or 1)  # 0 would turn the randomization off


@contextlib.contextmanager
def one_seed(environ: MutableMapping[str, str] = os.environ) -> Iterator[str]:
    """Processes that are started within have one seed, which it yields; "": the user has set one."""
    before = environ.get(VARIABLE)
    if before:
        yield ""
        return
    seed = environ[VARIABLE] = seed_of(secrets.token_hex())
    try:
        yield seed
    finally:
        del environ[VARIABLE]
        if before is not None:
            environ[VARIABLE] = before


def forget(seed: str, environ: MutableMapping[str, str] = os.environ) -> None:
    """In a process that has begun with a seed of ours: takes it out of the environment.

    vLLM makes the names of cached blocks of this variable, and the engine has none.
    """
    if seed and environ.get(VARIABLE) == seed:
        del environ[VARIABLE]
