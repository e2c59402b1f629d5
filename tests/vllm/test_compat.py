"""What mp-spmd knows of vLLM's versions agrees with the vLLM that is installed."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from vllm import SamplingParams
from vllm.config import ParallelConfig
from vllm.distributed.kv_transfer.kv_connector.utils import KVOutputAggregator
from vllm.v1.outputs import AsyncModelRunnerOutput
from vllm.version import __version__

from mpspmd.vllm import compat
from mpspmd.vllm.executor import MpSpmdExecutor
from mpspmd.vllm.node_compat import allow_nodes

try:
    from vllm.entrypoints.cli import serve as SERVE  # noqa: N812
except ModuleNotFoundError:  # of a version whose wheel is not installed with all that it needs
    SERVE = None

HAS_0_33 = [int(part) for part in re.findall(r"\d+", __version__)[:2]] >= [0, 33]


def test_what_is_new_in_0_33_is_found_there_and_not_before() -> None:
    assert compat.has_watchdog() == HAS_0_33
    assert compat.defers_outputs(KVOutputAggregator) == HAS_0_33
    assert hasattr(AsyncModelRunnerOutput, "get_kv_connector_output") == HAS_0_33


@pytest.mark.parametrize("version", ["0.31.0", "0.32.0+cpu", "0.33.1rc1.dev7+g4ba787ec9"])
def test_of_a_tested_version_nothing_is_told(version: str) -> None:
    assert compat.untested(version) is None


@pytest.mark.parametrize("version", ["0.30.2", "0.34.0", "0.331.0", "1.33.0", "dev"])
def test_of_another_version_one_line_is_told(version: str) -> None:
    line = compat.untested(version)
    assert line is not None
    assert version in line
    assert "\n" not in line


def test_the_packages_requirement_and_the_documentation_name_the_tested_versions() -> None:
    root = Path(__file__).parents[2]
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    major, minor = compat.TESTED[-1].split(".")
    wanted = f"vllm>={compat.TESTED[0]},<{major}.{int(minor) + 1}"
    assert project["optional-dependencies"]["vllm"] == [wanted]
    text = (root / "docs" / "reference" / "versions.md").read_text()
    assert all(f"| {version} |" in text for version in compat.TESTED)


# A version of vLLM that lacks what we change in it.


@pytest.fixture
def unwrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM's own functions, in the places of our wraps of them."""
    own = _own_functions()
    for owner, name in own:
        function = getattr(owner, name)
        static = isinstance(vars(owner)[name], staticmethod)
        while hasattr(function, "__wrapped__") and hasattr(function, "_mpspmd_wrapped"):
            function = function.__wrapped__
        monkeypatch.setattr(owner, name, staticmethod(function) if static else function)


def _own_functions() -> list[tuple[Any, str]]:
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.engine import core_client, exceptions, utils
    from vllm.v1.executor.abstract import Executor

    return [
        (Executor, "get_class"),
        (EngineArgs, "_check_feature_supported"),
        (ParallelConfig, "__post_init__"),
        *([(SERVE, "MultiprocExecutor")] if SERVE else []),
        (exceptions.EngineDeadError, "__init__"),
        (utils, "wait_for_engine_startup"),
        (core_client.SyncMPClient, "get_output"),
        (core_client.AsyncMPClient, "get_output_async"),
    ]


def _wrapped() -> list[str]:
    return [name for owner, name in _own_functions() if hasattr(getattr(owner, name, None), MARK)]


MARK = "_mpspmd_wrapped"
NODES = ["__post_init__", *(["MultiprocExecutor"] if SERVE else [])]
CAUSES = ["__init__", "wait_for_engine_startup", "get_output", "get_output_async"]


@pytest.mark.usefixtures("unwrapped")
def test_all_wraps_are_made_once() -> None:
    for _ in range(2):
        compat.know_backend(lambda parallel_config: None)
        compat.chain_causes(lambda: None)
        allow_nodes(lambda vllm_config: None)
        _config_of_two_nodes("mp-spmd")
    assert _wrapped() == ["get_class", "_check_feature_supported", *NODES, *CAUSES]
    assert not any(hasattr(getattr(*each).__wrapped__, MARK) for each in _own_functions())


@pytest.mark.usefixtures("unwrapped")
@pytest.mark.parametrize(
    ("missing", "consequence", "wrapped"),
    [
        ("get_class", "'mp-spmd' can't be used as", ["_check_feature_supported", *CAUSES]),
        ("_check_feature_supported", "can't be used with pipeline", ["get_class", *CAUSES]),
        (
            "wait_for_engine_startup",
            "won't name their cause",
            ["get_class", "_check_feature_supported"],
        ),
    ],
)
def test_what_a_version_lacks_is_said_in_one_line_and_left_as_it_is(
    missing: str,
    consequence: str,
    wrapped: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    ((owner, name),) = [each for each in _own_functions() if each[1] == missing]
    monkeypatch.delattr(owner, name)
    compat.know_backend(lambda parallel_config: None)
    compat.chain_causes(lambda: None)
    (line,) = caplog.messages
    assert consequence in line
    assert missing in line
    assert "\n" not in line
    assert _wrapped() == wrapped


# Several nodes.


def _config_of_two_nodes(backend: object) -> ParallelConfig:
    return ParallelConfig(
        tensor_parallel_size=2, nnodes=2, node_rank=1, distributed_executor_backend=backend
    )


@pytest.mark.usefixtures("unwrapped")
@pytest.mark.parametrize("by", ["name", "path", "class"])
def test_two_nodes_are_allowed_and_the_backend_keeps_its_name(by: str) -> None:
    backend = {"name": "mp-spmd", "path": compat.EXECUTOR, "class": MpSpmdExecutor}[by]
    with pytest.raises(ValueError, match="nnodes > 1 can only be set"):
        _config_of_two_nodes(backend)
    allow_nodes(lambda vllm_config: None)
    config = _config_of_two_nodes(backend)
    assert config.distributed_executor_backend == backend
    assert (config.nnodes_within_dp, config.local_world_size) == (2, 1)


@pytest.mark.usefixtures("unwrapped")
def test_two_nodes_stay_refused_for_other_backends() -> None:
    allow_nodes(lambda vllm_config: None)
    with pytest.raises(ValueError, match="nnodes > 1 can only be set"):
        _config_of_two_nodes("vllm.v1.executor.uniproc_executor.UniProcExecutor")


@pytest.mark.skipif(SERVE is None, reason="a package that this vLLM's server needs is missing")
@pytest.mark.usefixtures("unwrapped")
def test_run_headless_makes_our_follower_for_our_backend_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(SERVE, "MultiprocExecutor", lambda config, monitor_workers: "theirs")
    allow_nodes(lambda vllm_config: "ours")
    made = []
    for backend in ("mp-spmd", "mp"):
        config = SimpleNamespace(parallel_config=_config_of_two_nodes(backend))
        made.append(SERVE.MultiprocExecutor(config, monitor_workers=False))
    assert made == ["ours", "theirs"]


@pytest.mark.usefixtures("unwrapped")
def test_a_version_without_a_post_init_has_one_node(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(ParallelConfig, "__post_init__")
    allow_nodes(lambda vllm_config: None)
    (line,) = caplog.messages
    assert "can't be used with more than one node" in line
    assert "__post_init__" in line


def test_vllms_sampling_params_can_be_made_without_their_constructor() -> None:
    assert not compat.needs_its_constructor(SamplingParams)
    assert compat.needs_its_constructor(msgspec.defstruct("Alone", ["a"]))
