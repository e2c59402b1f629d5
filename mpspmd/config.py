"""RuntimeConfig: every setting of a run, with its limits."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import logging
import math
import os
import re
from collections.abc import Mapping
from typing import Any

from mpspmd.errors import ConfigError

logger = logging.getLogger(__name__)

_PREFIX = "MPSPMD_"
_STRATEGIES = ("auto", "spin", "yield", "park")
LAUNCH_VARIABLE = "MPSPMD_LAUNCH"
"""Not a setting: see processes/part.py."""
_MIB = 1 << 20


@dataclasses.dataclass(frozen=True)
class RuntimeConfig:
    """Settings of one engine and its ranks. `from_env()` takes MPSPMD_<NAME> for each field.

    The defaults take 12 MiB of shared memory with 8 ranks; Docker gives 64 MiB. Small rings also stay
    in the processor's cache. A message may be larger than its ring: it goes in fragments.
    """

    request_ring_bytes: int = 4 * _MIB
    """Capacity of the ring from the engine to all ranks: a power of two."""

    reply_ring_bytes: int = 1 * _MIB
    """Capacity of each rank's ring to the engine: a power of two."""

    start_timeout_s: float | None = None
    """How long all ranks may take until they are ready; None: as long as they live."""

    shutdown_timeout_s: float = 10.0
    """How long workers may take to shut down before they get SIGTERM, and 1 s later SIGKILL.

    In vLLM the default is VLLM_WORKER_SHUTDOWN_TIMEOUT_SECONDS. Ranks of a failed run have 1 s.
    """

    stall_warn_s: float = 30.0
    """After so long, and each time it has doubled, a step that isn't done is warned of with a report."""

    runtime_dir: str | None = None
    """Where the run's private folder for its control socket is made; None: the temp folder, or where that
    can't be written to, XDG_RUNTIME_DIR or /dev/shm."""

    wait: str = "auto"
    """How processes wait for messages: "spin" and "yield" take a core each, "park" sleeps at once, and
    "auto" sleeps until shortly before the next message is due."""

    digest_requests: bool = False
    """Each rank keeps a digest of all request bytes, `ctx.request_digest()`: proof of SPMD."""

    answer_early: bool = True
    """vLLM's `execute_model` is answered at once, and a step has one reply, that of `sample_tokens`."""

    step_deltas: bool = True
    """Steps go as deltas against what the ranks hold, if the engine has a codec for them; else whole."""

    def __post_init__(self) -> None:
        for name in ("digest_requests", "answer_early", "step_deltas"):
            if not isinstance(value := getattr(self, name), bool):
                raise ConfigError(f"{name}={value!r}: must be True or False")
        for name in ("request_ring_bytes", "reply_ring_bytes"):
            value = getattr(self, name)
            # 64 KiB: a page on every platform; 2 GiB: record lengths are 32 bits.
            if not isinstance(value, int) or value & (value - 1) or not 1 << 16 <= value <= 1 << 31:
                raise ConfigError(
                    f"{name}={value!r}: must be a power of two from {1 << 16} to {1 << 31} bytes"
                )
        if self.wait not in _STRATEGIES:
            raise ConfigError(f"wait={self.wait!r}: must be one of {', '.join(_STRATEGIES)}")
        for name in ("start_timeout_s", "shutdown_timeout_s", "stall_warn_s"):
            value = getattr(self, name)
            if value is None and name == "start_timeout_s":
                continue
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not 0 < value < math.inf:
                raise ConfigError(f"{name}={value!r}: must be a number of seconds above 0")

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **overrides: Any) -> RuntimeConfig:
        """The defaults, changed by MPSPMD_* variables, changed by `overrides`. ConfigError.

        A variable that is no setting changes nothing: it is logged, once a process. A service link of
        Kubernetes isn't even that.
        """
        environ = os.environ if environ is None else environ
        settings: dict[str, Any] = {}
        for field in dataclasses.fields(cls):
            variable = _PREFIX + field.name.upper()
            if variable in environ:
                settings[field.name] = _parse(variable, environ[variable], str(field.type))
        for variable in unknown_variables(environ):
            _warn_of(variable, environ[variable])
        try:
            return cls(**(settings | overrides))
        except ConfigError as error:
            name = str(error).partition("=")[0]
            if name not in settings or name in overrides:
                raise
            raise ConfigError(f"{_PREFIX}{name.upper()}: {error}") from None


def known_variables() -> list[str]:
    return [_PREFIX + field.name.upper() for field in dataclasses.fields(RuntimeConfig)]


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """Variables that begin as ours do, and are neither settings nor service links."""
    ours = {*known_variables(), LAUNCH_VARIABLE}
    return [
        name
        for name, text in environ.items()
        if name.startswith(_PREFIX) and name not in ours and not is_service_link(name, text)
    ]


def nearest_variable(unknown: str) -> str:
    """The setting that was probably meant, or an empty text."""
    return next(iter(difflib.get_close_matches(unknown, known_variables(), 1)), "")


_URL = r"(tcp|udp|sctp)://.*"
_NUMBER = r"\d+"
_ADDRESS = r"[\d.]+|[\da-fA-F:.]*:[\da-fA-F:.]*"
_SERVICE_LINKS = tuple(
    (re.compile(_PREFIX + r"(\w+_)?" + name), re.compile(text))
    for name, text in (
        (r"SERVICE_HOST", _ADDRESS),
        (r"SERVICE_PORT(_\w+)?", _NUMBER),
        (r"PORT", _URL),
        (r"PORT_\d+_(TCP|UDP|SCTP)", _URL),
        (r"PORT_\d+_(TCP|UDP|SCTP)_PROTO", r"tcp|udp|sctp"),
        (r"PORT_\d+_(TCP|UDP|SCTP)_PORT", _NUMBER),
        (r"PORT_\d+_(TCP|UDP|SCTP)_ADDR", _ADDRESS),
    )
)


def is_service_link(name: str, text: str) -> bool:
    """Whether Kubernetes sets such a variable for a service, which it does in every pod beside it.

    A service `mpspmd` gives MPSPMD_PORT, and `mpspmd-wait` gives MPSPMD_WAIT_PORT: so the text counts, too.
    """
    return any(names.fullmatch(name) and texts.fullmatch(text) for names, texts in _SERVICE_LINKS)


@functools.cache
def _warn_of(variable: str, text: str) -> None:
    nearest = nearest_variable(variable)
    meant = f"did you mean {nearest}?" if nearest else f"there are {', '.join(known_variables())}"
    logger.warning("%s=%r is no setting of mpspmd, and is ignored: %s", variable, text, meant)


def _parse(variable: str, text: str, kind: str) -> Any:
    if kind == "bool":
        values = {"0": False, "false": False, "1": True, "true": True}
        if text.lower() not in values:
            raise ConfigError(f"{variable}={text!r}: must be 0 or 1")
        return values[text.lower()]
    if kind.startswith("str"):
        return text or None
    if text.lower() == "none" and "None" in kind:
        return None
    try:
        return int(text) if kind == "int" else float(text)
    except ValueError:
        wanted = "a whole number" if kind == "int" else "a number"
        raise ConfigError(f"{variable}={text!r}: must be {wanted}") from None
