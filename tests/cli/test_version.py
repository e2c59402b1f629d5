"""Every command says its version, at once."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import mpspmd

pytestmark = pytest.mark.timeout(60)

_PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
_MODULES = {
    script.removeprefix("mpspmd-"): target.removesuffix(":main")
    for script, target in _PROJECT["scripts"].items()
}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("command", [[], *([name] for name in _MODULES)], ids=str)
def test_each_command_of_the_module_says_its_version(command: list[str]) -> None:
    done = run("-m", "mpspmd", *command, "--version")
    expected = (0, f"mpspmd {mpspmd.__version__}\n", "")
    assert (done.returncode, done.stdout, done.stderr) == expected


@pytest.mark.parametrize("command", _MODULES)
def test_each_script_says_its_version_without_torch(command: str) -> None:
    program = f"from {_MODULES[command]} import main; main()"
    done = run("-X", "importtime", "-c", program, "--version")
    assert (done.returncode, done.stdout) == (0, f"mpspmd {mpspmd.__version__}\n")
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert _MODULES[command].rpartition(".")[0] in imported
    assert "torch" not in imported


@pytest.mark.parametrize("command", _MODULES)
def test_the_help_names_the_option(command: str) -> None:
    done = run("-m", "mpspmd", command, "--help")
    assert done.returncode == 0
    assert "--version" in done.stdout


def test_the_launcher_says_its_version_behind_other_options_too() -> None:
    done = run("-m", "mpspmd", "launch", "-n", "2", "--version")
    assert (done.returncode, done.stdout) == (0, f"mpspmd {mpspmd.__version__}\n")
