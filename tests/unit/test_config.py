"""RuntimeConfig: defaults, the environment, and values that can't be used."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from mpspmd import RuntimeConfig
from mpspmd.config import SECRET_VARIABLES, known_variables, unknown_variables
from mpspmd.errors import ConfigError, MpSpmdError
from mpspmd.vllm.settings import Settings


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
        ("MPSPMD_RUNTIME_DIR", "none", None),
        ("MPSPMD_RECORD_REQUESTS", "none", None),
        ("MPSPMD_WAIT", "park", "park"),
        ("MPSPMD_DIGEST_REQUESTS", "1", True),
        ("MPSPMD_DIGEST_REQUESTS", "TRUE", True),
        ("MPSPMD_DIGEST_REQUESTS", "0", False),
        ("MPSPMD_STEP_DELTAS", "0", False),
        ("MPSPMD_BRIDGE_PORT", "4000", 4000),
    ],
)
def test_a_variable_sets_its_field_and_no_other(variable: str, text: str, value: Any) -> None:
    name = variable.removeprefix("MPSPMD_").lower()
    of = Settings if name in ("answer_early", "bridge_port") else RuntimeConfig
    config = of.from_env({variable: text})
    assert config == dataclasses.replace(of(), **{name: value})
    assert type(getattr(config, name)) is type(value)


def test_every_field_has_a_variable() -> None:
    fields = [f"MPSPMD_{field.name.upper()}" for field in dataclasses.fields(Settings)]
    assert set(known_variables()) == {*fields, "MPSPMD_LOG_LEVEL", *SECRET_VARIABLES}
    assert unknown_variables(dict.fromkeys(known_variables(), "1")) == []


def test_arguments_beat_the_environment() -> None:
    config = RuntimeConfig.from_env({"MPSPMD_START_TIMEOUT_S": "2"}, start_timeout_s=7)
    assert config.start_timeout_s == 7


def test_the_environment_beats_defaults_which_beat_the_fields_own() -> None:
    defaults = {"wait": "park", "shutdown_timeout_s": 3, "digest_requests": True}
    config = RuntimeConfig.from_env({"MPSPMD_WAIT": "spin"}, defaults=defaults, stall_warn_s=5)
    assert config == RuntimeConfig(
        wait="spin", shutdown_timeout_s=3.0, digest_requests=True, stall_warn_s=5
    )


def test_defaults_may_be_written_as_in_json_or_as_in_a_variable() -> None:
    for defaults in (
        {"request_ring_bytes": 1 << 16, "start_timeout_s": 2, "step_deltas": False},
        {"request_ring_bytes": "65536", "start_timeout_s": "2", "step_deltas": "false"},
    ):
        config = RuntimeConfig.from_env({}, defaults=defaults)
        assert config == RuntimeConfig(
            request_ring_bytes=1 << 16, start_timeout_s=2.0, step_deltas=False
        )
    assert RuntimeConfig.from_env({}, defaults={"start_timeout_s": None}) == RuntimeConfig()
    assert not Settings.from_env({}, defaults={"answer_early": False}).answer_early


@pytest.mark.parametrize(
    ("defaults", "words"),
    [
        ({"wiat": "park"}, "'wiat' is no setting: did you mean wait"),
        ({"zzzzzz": 1}, "'zzzzzz' is no setting: there are request_ring_bytes, "),
        ({5: 1}, "5 is no setting"),
        ({"answer_early": 1}, "'answer_early' is no setting"),
        ({"wait": "sleep"}, "wait='sleep': must be one of auto, spin, yield, park"),
        ({"wait": ["park"]}, "wait=.'park'.: must be one of auto, spin, yield, park"),
        ({"request_ring_bytes": True}, "request_ring_bytes=True: must be a whole number"),
        ({"request_ring_bytes": 5}, "request_ring_bytes=5: must be a power of two from"),
        ({"start_timeout_s": {}}, "start_timeout_s={}: must be a number, or none"),
        ({"stall_warn_s": -1}, "stall_warn_s=-1.0: must be a number of seconds above 0"),
        ({"runtime_dir": 5}, "runtime_dir=5: must be a text"),
        ({"digest_requests": "yes"}, "digest_requests='yes': must be 0 or 1, or true or false"),
        (["wait"], "settings=.'wait'.: must be a dictionary of settings"),
    ],
)
def test_defaults_that_cannot_be_used_are_refused_by_their_key(defaults: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=f"^{words}"):
        RuntimeConfig.from_env({}, defaults=defaults)


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPSPMD_SHUTDOWN_TIMEOUT_S", "4.5")
    assert RuntimeConfig.from_env().shutdown_timeout_s == 4.5


def test_an_unknown_variable_is_warned_of_once_with_the_name_that_was_meant(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for _ in range(2):
        config = RuntimeConfig.from_env({"MPSPMD_REQEST_RING_BYTES": "1", "MPSPMD_WAIT": "park"})
    assert config == RuntimeConfig(wait="park")
    (warning,) = caplog.messages
    assert "MPSPMD_REQEST_RING_BYTES='1' is no setting" in warning
    assert "did you mean MPSPMD_REQUEST_RING_BYTES?" in warning


def test_an_unknown_variable_that_is_near_to_none_is_warned_of_with_all(
    caplog: pytest.LogCaptureFixture,
) -> None:
    RuntimeConfig.from_env({"MPSPMD_ZZZZZZZ": "1"})
    (warning,) = caplog.messages
    assert all(name in warning for name in known_variables())


LINKS = {
    "SERVICE_HOST": "10.0.0.1",
    "SERVICE_PORT": "8000",
    "SERVICE_PORT_HTTP": "8000",
    "PORT": "tcp://10.0.0.1:8000",
    "PORT_8000_TCP": "tcp://10.0.0.1:8000",
    "PORT_8000_TCP_PROTO": "tcp",
    "PORT_8000_TCP_PORT": "8000",
    "PORT_8000_TCP_ADDR": "fd00::1",
    "PORT_53_UDP": "udp://[fd00::1]:53",
}


@pytest.mark.parametrize("service", ["", "WAIT_", "RUNTIME_DIR_", "LAUNCH_", "A_B_"])
def test_the_links_of_a_kubernetes_service_are_ignored_silently(
    service: str, caplog: pytest.LogCaptureFixture
) -> None:
    links = {f"MPSPMD_{service}{name}": text for name, text in LINKS.items()}
    assert RuntimeConfig.from_env(links) == RuntimeConfig()
    assert not caplog.messages


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("MPSPMD_PORT", "8000"),
        ("MPSPMD_SERVICE_HOST", "somewhere"),
        ("MPSPMD_SERVICE_PORT", "http"),
        ("MPSPMD_PORT_8000_TCP_PROTO", "http"),
        ("MPSPMD_REPORT", "tcp://10.0.0.1:8000"),
        ("MPSPMD_SERVICE", "10.0.0.1"),
    ],
)
def test_what_only_resembles_a_link_is_an_unknown_variable(variable: str, text: str) -> None:
    assert unknown_variables({variable: text}) == [variable]


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("MPSPMD_REQUEST_RING_BYTES", "4MiB"),
        ("MPSPMD_REQUEST_RING_BYTES", "none"),
        ("MPSPMD_REPLY_RING_BYTES", "65536.5"),
        ("MPSPMD_REPLY_RING_BYTES", ""),
        ("MPSPMD_START_TIMEOUT_S", "soon"),
        ("MPSPMD_START_TIMEOUT_S", ""),
        ("MPSPMD_SHUTDOWN_TIMEOUT_S", "none"),
        ("MPSPMD_DIGEST_REQUESTS", "yes"),
        ("MPSPMD_WAIT", "tcp://10.0.0.1:8000"),
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


@pytest.mark.parametrize("field", ["digest_requests", "step_deltas"])
@pytest.mark.parametrize("value", [0, 1, "1", None])
def test_what_is_neither_true_nor_false_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{field}={value!r}: must be True or False"):
        Settings(**{field: value})


@pytest.mark.parametrize("field", ["runtime_dir", "dump_dir", "record_requests"])
def test_what_is_no_path_is_refused(field: str) -> None:
    with pytest.raises(ConfigError, match=f"{field}=5: must be a path, or None"):
        RuntimeConfig(**{field: 5})


def test_a_setting_of_vllm_alone_is_no_misspelt_one_for_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert RuntimeConfig.from_env({"MPSPMD_ANSWER_EARLY": "0"}) == RuntimeConfig()
    assert not caplog.messages


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
        RuntimeConfig(wait="sleep")  # type: ignore[arg-type]
