"""Settings: those of a run, as vLLM's user gives them, and one that only our executor has."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from mpspmd.config import RuntimeConfig
from mpspmd.errors import ConfigError

SECTION = "mpspmd"
"""The key of our settings in vLLM's additional configuration."""

_LEAST_TIMEOUT_S = 0.01


@dataclasses.dataclass(frozen=True)
class Settings(RuntimeConfig):
    """MPSPMD_* variables beat `--additional-config '{"mpspmd": {...}}'`, which beats the defaults."""

    answer_early: bool = True
    """`execute_model` is answered at once, and a step has one reply, that of `sample_tokens`."""

    bridge_port: int = 0
    """With several nodes: the head's port for the other nodes' bridges. 0: the one after --master-port."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.bridge_port <= 65534:
            raise ConfigError(
                f"bridge_port={self.bridge_port!r}: must be a port from 1 to 65534, or 0"
            )


def read_settings(
    additional_config: object, environ: Mapping[str, str], worker_shutdown_timeout_s: float
) -> Settings:
    """`worker_shutdown_timeout_s` is vLLM's: our default for the end of workers. In vLLM 0 means no wait.

    Raises:
        ConfigError: a variable or a setting has an impossible value, or there is no such setting.
    """
    # vLLM also takes an object of another package, which has nothing of ours.
    section = additional_config.get(SECTION, {}) if isinstance(additional_config, dict) else {}
    if not isinstance(section, dict):
        raise ConfigError(f"additional_config[{SECTION!r}]={section!r}: must be an object")
    try:
        Settings.from_env({}, defaults=section)
    except ConfigError as error:
        raise ConfigError(f"additional_config[{SECTION!r}]: {error}") from None
    theirs = {"shutdown_timeout_s": max(_LEAST_TIMEOUT_S, worker_shutdown_timeout_s)}
    return Settings.from_env(environ, defaults=theirs | section)
