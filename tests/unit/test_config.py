"""RuntimeConfig: defaults, the environment, and values that can't be used."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from mpspmd import RuntimeConfig
from mpspmd.errors import ConfigError, MpSpmdError


def test_the_defaults_are_valid_and_the_environment_changes_nothing_when_empty() -> None:
    assert RuntimeConfig.from_env({}) == RuntimeConfig()
    assert RuntimeConfig.from_env({"PATH": "/bin", "VLLM_X": "1"}) == RuntimeConfig()


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        RuntimeConfig().reply_ring_bytes = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("MPSPMD_REQUEST_RING_BYTES", "65536", 65536),
        ("MPSPMD_REPLY_RING_BYTES", "131072", 131072),
        ("MPSPMD_START_TIMEOUT_S", "2.5", 2.5),
        ("MPSPMD_START_TIMEOUT_S", "none", None),
        ("MPSPMD_SHUTDOWN_TIMEOUT_S", "3", 3.0),
        ("MPSPMD_RUNTIME_DIR", "/run/x", "/run/x"),
        ("MPSPMD_RUNTIME_DIR", "", None),
        ("MPSPMD_WAIT", "park", "park"),
        ("MPSPMD_DIGEST_REQUESTS", "1", True),
        ("MPSPMD_DIGEST_REQUESTS", "TRUE", True),
        ("MPSPMD_DIGEST_REQUESTS", "0", False),
        ("MPSPMD_ANSWER_EARLY", "0", False),
    ],
)
def test_a_variable_sets_its_field_and_no_other(variable: str, text: str, value: Any) -> None:
    name = variable.removeprefix("MPSPMD_").lower()
    config = RuntimeConfig.from_env({variable: text})
    assert config == dataclasses.replace(RuntimeConfig(), **{name: value})
    assert type(getattr(config, name)) is type(value)


def test_every_field_has_a_variable() -> None:
    for field in dataclasses.fields(RuntimeConfig):
        with pytest.raises(ConfigError) as caught:
            RuntimeConfig.from_env({"MPSPMD_NO_SUCH_SETTING": "1"})
        assert f"MPSPMD_{field.name.upper()}" in str(caught.value)


def test_arguments_beat_the_environment() -> None:
    config = RuntimeConfig.from_env({"MPSPMD_START_TIMEOUT_S": "2"}, start_timeout_s=7)
    assert config.start_timeout_s == 7


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPSPMD_SHUTDOWN_TIMEOUT_S", "4.5")
    assert RuntimeConfig.from_env().shutdown_timeout_s == 4.5


def test_an_unknown_variable_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"MPSPMD_RING_BYTES='1'.*MPSPMD_REQUEST_RING_BYTES"):
        RuntimeConfig.from_env({"MPSPMD_RING_BYTES": "1"})


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("MPSPMD_REQUEST_RING_BYTES", "4MiB"),
        ("MPSPMD_REQUEST_RING_BYTES", "none"),
        ("MPSPMD_REPLY_RING_BYTES", "65536.0"),
        ("MPSPMD_REPLY_RING_BYTES", ""),
        ("MPSPMD_START_TIMEOUT_S", "soon"),
        ("MPSPMD_SHUTDOWN_TIMEOUT_S", "none"),
        ("MPSPMD_DIGEST_REQUESTS", "yes"),
    ],
)
def test_text_that_says_no_value_is_refused_with_variable_and_text(
    variable: str, text: str
) -> None:
    with pytest.raises(ConfigError, match=variable) as caught:
        RuntimeConfig.from_env({variable: text})
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("field", ["request_ring_bytes", "reply_ring_bytes"])
@pytest.mark.parametrize("value", [0, -65536, 1 << 15, 3 << 16, 1 << 32, 65536.0, "65536", None])
def test_an_impossible_ring_size_is_refused_with_the_limits(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match="power of two from 65536 to 2147483648") as caught:
        RuntimeConfig(**{field: value})
    assert f"{field}={value!r}" in str(caught.value)


@pytest.mark.parametrize("value", [1 << 16, 1 << 31])
def test_the_limits_of_a_ring_size_are_allowed(value: int) -> None:
    config = RuntimeConfig(request_ring_bytes=value, reply_ring_bytes=value)
    assert config.request_ring_bytes == config.reply_ring_bytes == value


@pytest.mark.parametrize("field", ["start_timeout_s", "shutdown_timeout_s"])
@pytest.mark.parametrize("value", [0, -1, -0.5, math.nan, "5", [1]])
def test_an_impossible_timeout_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match="number of seconds above 0") as caught:
        RuntimeConfig(**{field: value})
    assert f"{field}={value!r}" in str(caught.value)


@pytest.mark.parametrize("field", ["digest_requests", "answer_early"])
@pytest.mark.parametrize("value", [0, 1, "1", None])
def test_what_is_neither_true_nor_false_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{field}={value!r}: must be True or False"):
        RuntimeConfig(**{field: value})


def test_a_shutdown_always_ends() -> None:
    with pytest.raises(ConfigError, match="shutdown_timeout_s=None"):
        RuntimeConfig(shutdown_timeout_s=None)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="shutdown_timeout_s=inf"):
        RuntimeConfig(shutdown_timeout_s=math.inf)


def test_a_config_error_is_a_value_error_and_one_of_ours() -> None:
    assert issubclass(ConfigError, ValueError)
    assert issubclass(ConfigError, MpSpmdError)


def test_an_unknown_strategy_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="wait='sleep': must be one of auto, spin, yield, park"):
        RuntimeConfig(wait="sleep")
