"""What mp-spmd knows of vLLM's versions agrees with the vLLM that is installed."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from vllm.distributed.kv_transfer.kv_connector.utils import KVOutputAggregator
from vllm.v1.outputs import AsyncModelRunnerOutput
from vllm.version import __version__

from mpspmd.vllm import compat

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
