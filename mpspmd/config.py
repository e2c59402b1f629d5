"""RuntimeConfig: every setting of a run, with its limits."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import logging
import math
import os
import re
import typing
from collections.abc import Mapping
from typing import Any, Literal, Self, TypeAlias

from mpspmd.errors import ConfigError

logger = logging.getLogger(__name__)

_PREFIX = "MPSPMD_"
LAUNCH_VARIABLE = "MPSPMD_LAUNCH"
"""Not a setting: see processes/launch.py."""
LOG_LEVEL_VARIABLE = "MPSPMD_LOG_LEVEL"
"""Of all engines of a process, and of their ranks: see log.py."""
SECRET_VARIABLES = ("MPSPMD_SECRET", "MPSPMD_SECRET_FILE")
"""Of the nodes of a run: see bridge/keys.py."""
_OTHER_VARIABLES = (
    LOG_LEVEL_VARIABLE,
    *SECRET_VARIABLES,
    "MPSPMD_ANSWER_EARLY",
    "MPSPMD_BRIDGE_PORT",
)
"""Settings that are no fields of RuntimeConfig itself."""
_MIB = 1 << 20

Wait: TypeAlias = Literal["auto", "spin", "yield", "park"]


@dataclasses.dataclass(frozen=True)
class RuntimeConfig:
    """Settings of one engine and its ranks. Times are in seconds, sizes in bytes.

        config = mpspmd.RuntimeConfig.from_env(wait="park", start_timeout_s=60)
        engine = mpspmd.Engine(Worker, world_size=2, config=config)

    `from_env()` takes MPSPMD_<NAME> for each field; without `config` an engine does that. The defaults take
    14.3 MiB of shared memory with 8 ranks; Docker gives 64 MiB. Small rings also stay in the processor's
    cache. A message may be larger than its ring: it goes in fragments.

    Raises:
        ConfigError: A value can't be used; the message names the field, the value and what is allowed.
    """

    request_ring_bytes: int = 4 * _MIB
    """Capacity of the ring from the engine to all ranks: a power of two from 64 KiB to 2 GiB."""

    reply_ring_bytes: int = 1 * _MIB
    """Capacity of each rank's ring to the engine: a power of two from 64 KiB to 2 GiB."""

    start_timeout_s: float | None = None
    """How long all ranks may take until they are ready; None: as long as their processes live."""

    shutdown_timeout_s: float = 10.0
    """How long workers may take to shut down before they get SIGTERM, and 1 s later SIGKILL.

    Ranks of a failed run have 1 s.
    """

    stall_warn_s: float = 30.0
    """A step that takes longer is reported in the log, and again each time that its age has doubled."""

    node_timeout_s: float = 3.0
    """In a run over several machines: a node that is silent for longer is lost, and the run with it."""

    runtime_dir: str | None = None
    """Where the run's private folder for its control socket is made; None: the temp folder, or where that
    can't be written to, XDG_RUNTIME_DIR or /dev/shm."""

    wait: Wait = "auto"
    """How processes wait for messages: "spin" and "yield" take a core each, "park" sleeps at once, and
    "auto" sleeps until shortly before the next message is due."""

    digest_requests: bool = False
    """Each rank keeps a digest of all request bytes, `ctx.request_digest()`: proof of SPMD."""

    step_deltas: bool = True
    """Steps go as deltas against what the ranks hold, if the engine has a codec for them; else whole."""

    record_steps: int = 4096
    """How many steps the engine and each rank keep in the recorder: a power of two from 2 to 1048576, or 0
    for none. A step takes 64 bytes of shared memory in each process."""

    dump_dir: str | None = None
    """A folder into which the janitor writes what the recorder holds when the run has failed or was killed,
    or a call has timed out or stalled; None: nothing is written."""

    record_requests: str | None = None
    """A file into which the engine writes all requests and replies, for `mpspmd-replay`; None: nothing is
    written. If there is such a file, the name gets a number."""

    record_requests_bytes: int = 1 << 30
    """How large that file may get: 65536 or more. Then it gets the suffix `.1`, and a new one begins."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type == "bool" and not isinstance(value, bool):
                raise ConfigError(f"{field.name}={value!r}: must be True or False")
            if field.type == "str | None" and not isinstance(value, str | os.PathLike | None):
                raise ConfigError(f"{field.name}={value!r}: must be a path, or None")
        for name in ("request_ring_bytes", "reply_ring_bytes"):
            value = getattr(self, name)
            # 64 KiB: a page on every platform; 2 GiB: record lengths are 32 bits.
            if not isinstance(value, int) or value & (value - 1) or not 1 << 16 <= value <= 1 << 31:
                raise ConfigError(
                    f"{name}={value!r}: must be a power of two from {1 << 16} to {1 << 31} bytes"
                )
        steps = self.record_steps
        if not isinstance(steps, int) or steps & (steps - 1) or not 2 <= (steps or 2) <= 1 << 20:
            raise ConfigError(
                f"record_steps={steps!r}: must be 0 or a power of two from 2 to {1 << 20} steps"
            )
        if self.dump_dir is not None and steps == 0:
            raise ConfigError(
                f"dump_dir={self.dump_dir!r}: needs the recorder; set record_steps to a power of two"
            )
        limit = self.record_requests_bytes
        if not isinstance(limit, int) or limit < 1 << 16:
            raise ConfigError(f"record_requests_bytes={limit!r}: must be {1 << 16} bytes or more")
        if self.wait not in (ways := typing.get_args(Wait)):
            raise ConfigError(f"wait={self.wait!r}: must be one of {', '.join(ways)}")
        for name in ("start_timeout_s", "shutdown_timeout_s", "stall_warn_s", "node_timeout_s"):
            value = getattr(self, name)
            if value is None and name == "start_timeout_s":
                continue
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not 0 < value < math.inf:
                raise ConfigError(f"{name}={value!r}: must be a number of seconds above 0")

    @classmethod
    def from_env(
        cls,
        environ: Mapping[str, str] | None = None,
        *,
        defaults: Mapping[str, Any] | None = None,
        **overrides: Any,
    ) -> Self:
        """The fields' defaults, changed by `defaults`, changed by variables, changed by `overrides`.

            RuntimeConfig.from_env(defaults={"wait": "park"})  # what a program's own settings say

        `environ` is this process's environment unless it is given. `defaults` has the names of fields and
        values as in JSON or as in a variable. A variable that looks like a setting and is none changes
        nothing: it is logged once a process, unless it is a service link of Kubernetes.

        Raises:
            ConfigError: A value can't be used, or `defaults` has a name that is no field; the message names
                the variable or the key, the value and what is allowed.
        """
        environ = os.environ if environ is None else environ
        kinds = typing.get_type_hints(cls)
        if not isinstance(defaults, Mapping | None):
            raise ConfigError(f"settings={defaults!r}: must be a dictionary of settings")
        settings: dict[str, Any] = {}
        for name, value in (defaults or {}).items():
            if name not in kinds:
                raise ConfigError(f"{name!r} is no setting: {_meant(str(name), list(kinds))}")
            settings[name] = _convert(name, value, kinds[name])
        variables = {name: each for name in kinds if (each := _PREFIX + name.upper()) in environ}
        for name, variable in variables.items():
            settings[name] = _convert(variable, environ[variable], kinds[name])
        for variable in unknown_variables(environ):
            _warn_of(variable, environ[variable])
        try:
            return cls(**(settings | overrides))
        except ConfigError as error:
            name = str(error).partition("=")[0]
            if name not in variables or name in overrides:
                raise
            raise ConfigError(f"{variables[name]}: {error}") from None


_WORDS: dict[Any, str] = {
    bool: "0 or 1, or true or false",
    int: "a whole number",
    float: "a number",
    float | None: "a number, or none",
    str | None: "a text",
}


_NOTHING: dict[Any, tuple[str, ...]] = {float | None: ("none",), str | None: ("none", "")}
"""The texts that mean None. An empty time is refused: it may be a variable of the shell that isn't set."""


def _convert(source: str, value: Any, kind: Any) -> Any:
    """A variable's text, or a value as JSON has it, as a field of this type. ConfigError."""
    import msgspec  # only where a setting is given: `import mpspmd` and RuntimeConfig do without

    if isinstance(value, str) and value.lower() in _NOTHING.get(kind, ()):
        value = None
    if kind not in _WORDS:
        return value  # whether it is one of a few words is checked with all other limits
    try:
        return msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError:
        raise ConfigError(f"{source}={value!r}: must be {_WORDS[kind]}") from None


def known_variables() -> list[str]:
    fields = dataclasses.fields(RuntimeConfig)
    return [*(_PREFIX + field.name.upper() for field in fields), *_OTHER_VARIABLES]


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
    return _nearest(unknown, known_variables())


def _nearest(name: str, known: list[str]) -> str:
    return next(iter(difflib.get_close_matches(name, known, 1)), "")


def _meant(name: str, known: list[str]) -> str:
    nearest = _nearest(name, known)
    return f"did you mean {nearest}?" if nearest else f"there are {', '.join(known)}"


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
    meant = _meant(variable, known_variables())
    text = shown(variable, text)
    logger.warning("%s=%r is no setting of mpspmd, and is ignored: %s", variable, text, meant)


def shown(variable: str, text: str) -> str:
    """An unknown variable's text, for a message; hidden if it may be the secret with a slip in its name."""
    return "…" if "SECRE" in variable else text
