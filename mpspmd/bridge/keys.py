"""Keys: what the nodes of a run authenticate each other with, derived from a secret that they share."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass

import zmq
from zmq.utils import z85

from mpspmd.config import SECRET_VARIABLES
from mpspmd.errors import ConfigError

_TEXT, _FILE = SECRET_VARIABLES
_SHORTEST = 16
NO_SECRET = "none"
"""The secret's value that says: the network is trusted, so nothing is encrypted or authenticated."""


@dataclass(frozen=True, repr=False)
class KeyPair:
    """A pair of CURVE keys, in the encoding that ZeroMQ takes."""

    public: bytes
    secret: bytes


@dataclass(frozen=True, repr=False)
class Keys:
    """The head's pair, and the one pair that all other nodes have. Whoever knows the secret has both."""

    head: KeyPair
    node: KeyPair


def keys_from(environ: Mapping[str, str] = os.environ) -> Keys | None:
    """The keys of the run's secret; None where MPSPMD_SECRET=none says that there are none.

    Raises:
        ConfigError: There is no secret, it can't be read, or it is too short. The message doesn't show it.
    """
    place, secret = _secret(environ)
    if secret == NO_SECRET:
        return None
    if len(secret) < _SHORTEST:
        raise ConfigError(
            f"the secret in {place} has {len(secret)} characters: must have {_SHORTEST} or more; "
            "make one with `openssl rand -hex 32`"
        )
    return Keys(_pair(secret, b"mpspmd-head"), _pair(secret, b"mpspmd-node"))


def _secret(environ: Mapping[str, str]) -> tuple[str, str]:
    """Where it was found, and the secret."""
    if path := environ.get(_FILE):
        try:
            with open(path, encoding="utf-8") as file:
                return f"{_FILE}={path!r}", file.read().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{_FILE}={path!r}: can't be read: {error}") from error
    if secret := environ.get(_TEXT, "").strip():
        return _TEXT, secret
    raise ConfigError(
        "a run over several machines needs a secret that all its nodes know: make one with "
        f"`openssl rand -hex 32`, and give it to every node in the file that {_FILE} names, or in {_TEXT}; "
        f"{_TEXT}={NO_SECRET} does without, where nobody else can reach the network"
    )


def _pair(secret: str, purpose: bytes) -> KeyPair:
    data = secret.encode(errors="surrogateescape")  # a variable may hold any bytes
    # Any 32 bytes are a secret key of CURVE.
    key = z85.encode(hashlib.blake2b(data, digest_size=32, person=purpose).digest())
    return KeyPair(zmq.curve_public(key), key)
