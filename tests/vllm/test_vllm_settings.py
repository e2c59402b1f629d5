"""Settings come from MPSPMD_* variables, then from vLLM's additional configuration, then from vLLM."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from scripted_steps import start

from mpspmd.config import unknown_variables
from mpspmd.errors import ConfigError
from mpspmd.vllm.settings import Settings, read_settings


class Other:
    """vLLM takes any object for its additional configuration."""


@pytest.mark.parametrize(
    ("additional", "variables", "expected"),
    [
        ({}, {}, {}),
        ({"another": {"wait": "spin"}}, {}, {}),
        (Other(), {}, {}),
        (None, {}, {}),
        ({"mpspmd": {}}, {}, {}),
        ({"mpspmd": {"wait": "park"}}, {}, {"wait": "park"}),
        ({"mpspmd": {"wait": "park"}}, {"MPSPMD_WAIT": "yield"}, {"wait": "yield"}),
        ({"mpspmd": {"stall_warn_s": 3}}, {}, {"stall_warn_s": 3}),
        ({"mpspmd": {"start_timeout_s": None}}, {}, {"start_timeout_s": None}),
        ({"mpspmd": {"shutdown_timeout_s": 2.5}}, {}, {"shutdown_timeout_s": 2.5}),
        ({}, {"MPSPMD_SHUTDOWN_TIMEOUT_S": "7"}, {"shutdown_timeout_s": 7.0}),
        ({"mpspmd": {"step_deltas": False}}, {}, {"step_deltas": False}),
        ({"mpspmd": {"answer_early": False}}, {}, {"answer_early": False}),
        ({}, {"MPSPMD_ANSWER_EARLY": "0"}, {"answer_early": False}),
        (
            {"mpspmd": {"answer_early": False}},
            {"MPSPMD_ANSWER_EARLY": "1"},
            {"answer_early": True},
        ),
        ({"mpspmd": {"bridge_port": 4000}}, {}, {"bridge_port": 4000}),
        ({"mpspmd": {"bridge_port": 4000}}, {"MPSPMD_BRIDGE_PORT": "0"}, {"bridge_port": 0}),
    ],
)
def test_a_variable_beats_the_additional_configuration_which_beats_vllms_timeout(
    additional: object, variables: dict[str, str], expected: dict[str, Any]
) -> None:
    wanted = dataclasses.replace(Settings(shutdown_timeout_s=4.0), **expected)
    assert read_settings(additional, variables, 4.0) == wanted


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("park", r"additional_config\['mpspmd'\]='park': must be an object"),
        ({"wiat": "park"}, r"\['mpspmd'\]: 'wiat' is no setting: did you mean wait\?"),
        ({"zzzzz": 1}, "'zzzzz' is no setting: there are request_ring_bytes.*answer_early"),
        ({"wait": "sleep"}, r"additional_config\['mpspmd'\]: wait='sleep': must be one of"),
        ({"request_ring_bytes": 5}, "request_ring_bytes=5: must be a power of two"),
        ({"stall_warn_s": "soon"}, "stall_warn_s='soon': must be a number"),
        ({"answer_early": 2}, "answer_early=2: must be"),
        ({"bridge_port": 65535}, "bridge_port=65535: must be a port from 1 to 65534, or 0"),
        ({"bridge_port": -1}, "bridge_port=-1: must be a port"),
    ],
)
def test_a_bad_value_and_an_unknown_setting_are_refused(section: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_settings({"mpspmd": section}, {}, 4.0)


def test_a_bad_value_is_refused_though_a_variable_beats_it() -> None:
    with pytest.raises(ConfigError, match="wait='sleep'"):
        read_settings({"mpspmd": {"wait": "sleep"}}, {"MPSPMD_WAIT": "park"}, 4.0)


def test_a_bad_variable_is_refused_by_its_name() -> None:
    with pytest.raises(ConfigError, match="MPSPMD_ANSWER_EARLY='perhaps': must be 0 or 1"):
        read_settings({}, {"MPSPMD_ANSWER_EARLY": "perhaps"}, 4.0)


def test_a_timeout_of_zero_which_vllm_allows_lets_workers_no_time() -> None:
    assert 0 < read_settings({}, {}, 0).shutdown_timeout_s < 0.1


@pytest.mark.parametrize("variable", ["MPSPMD_ANSWER_EARLY", "MPSPMD_BRIDGE_PORT"])
def test_a_variable_that_only_vllms_executor_has_is_not_warned_of(variable: str) -> None:
    assert unknown_variables({variable: "0"}) == []


def test_an_unknown_setting_is_one_error_before_any_rank_starts(model: Path) -> None:
    def change(config: Any) -> None:
        config.additional_config = {"mpspmd": {"wiat": "park"}}

    with pytest.raises(ConfigError, match="did you mean wait"):
        start(model, asynchronous=False, change=change)
