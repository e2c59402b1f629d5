"""mpspmd-doctor finds what would go wrong, when it is really wrong."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shlex
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

import mpspmd
from mpspmd.cli.doctor.checks import CHECKS, Check, Finding, Level, Plan
from mpspmd.cli.doctor.checks.machine import cores
from mpspmd.cli.doctor.checks.resources import shared_memory
from mpspmd.cli.doctor.checks.software import settings, vllm
from mpspmd.config import RuntimeConfig

pytestmark = pytest.mark.timeout(120)

_DOCTOR = [sys.executable, "-c", "from mpspmd.cli.doctor.main import main; main()"]


def _doctor(*arguments: str, before: str = "", prefix: tuple[str, ...] = ()) -> tuple[int, str]:
    """Exit code and output; `before` are shell commands that prepare its process."""
    command = f"{before} exec {shlex.join([*_DOCTOR, *arguments])}"
    done = subprocess.run([*prefix, "/bin/sh", "-c", command], capture_output=True, text=True)
    # A busy machine may take so long for a start that this is noted.
    assert not [line for line in done.stderr.splitlines() if "not all ranks are ready" not in line]
    return done.returncode, done.stdout


def _findings(check: Check, ranks: int = 2, **settings: int) -> list[Finding]:
    return list(check(Plan(ranks, RuntimeConfig(**settings))))


def _line(output: str, subject: str) -> str:
    return next(line for line in output.splitlines() if subject in line)


@pytest.mark.parametrize("seconds", ["0.3", "1e-9"])
def test_here_everything_works_and_the_channel_is_measured(seconds: str) -> None:
    code, output = _doctor("--ranks", "2", "--seconds", seconds)
    assert code == 0
    assert "a run of 2 rank(s) will work" in output
    assert "2 rank(s) answer 64 bytes in" in _line(output, "channel")
    assert "Traceback" not in output


def test_a_descriptor_limit_that_is_too_low_is_found() -> None:
    code, output = _doctor("--ranks", "8", before="ulimit -n 70;")
    assert code == 1
    assert "fails" in _line(output, "file descriptors")
    assert "limit 70" in output
    assert "ulimit -n 4096" in output
    assert output.splitlines()[-1].endswith("will fail: file descriptors")


def test_more_ranks_than_cores_are_found() -> None:
    usable = len(os.sched_getaffinity(0))
    (finding,) = _findings(cores, usable + 1)
    assert (finding.level, finding.subject) == (Level.SLOW, "cores")
    assert f"{usable} cores for {usable + 1} rank(s)" in finding.found
    assert _findings(cores, 65)[0].level is Level.FAILS


def test_shared_memory_that_is_too_small_for_the_rings_is_found() -> None:
    large = {"request_ring_bytes": 1 << 31, "reply_ring_bytes": 1 << 31}
    if psutil.virtual_memory().available > 65 << 31:
        pytest.skip("this machine's memory holds even the largest rings")
    finding = _findings(shared_memory, 64, **large)[0]
    assert finding.level is Level.FAILS
    assert "133136.8 MiB needed" in finding.found
    assert finding.subject == "memory"
    assert "MPSPMD_REQUEST_RING_BYTES" in finding.advice


def test_a_small_dev_shm_is_found() -> None:
    unshare = ("unshare", "--mount") if os.getuid() == 0 else ("unshare", "--mount", "-r")
    mount = "mount -t tmpfs -o size=4m tmpfs /dev/shm;"
    if subprocess.run([*unshare, "/bin/sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("this user may not mount anything")
    code, output = _doctor("--ranks", "2", "--seconds", "0", before=mount, prefix=unshare)
    assert code == 0
    assert _line(output, "/dev/shm").startswith("note")
    assert "4194304 are free" in output
    assert "--shm-size" in output


@pytest.mark.vllm
class TestVllm:
    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        if importlib.util.find_spec("vllm") is None:
            pytest.skip("vLLM isn't installed")

    def test_a_plugin_that_is_left_out_is_found(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert [finding.level for finding in _findings(vllm)] == [Level.OK, Level.OK]
        monkeypatch.setenv("VLLM_PLUGINS", "another")
        assert _findings(vllm)[1].level is Level.FAILS
        assert "add mp_spmd to VLLM_PLUGINS" in _findings(vllm)[1].advice

    def test_a_version_that_has_not_been_tested_is_noted(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for version, level in [("0.31.0+cpu", Level.OK), ("0.33.0", Level.OK), ("9.9", Level.NOTE)]:
            monkeypatch.setattr(importlib.metadata, "version", lambda name, it=version: it)
            assert _findings(vllm)[0].level is level
        assert "0.31 to 0.33, and this is 9.9" in _findings(vllm)[0].advice

    def test_a_plugin_that_is_not_installed_is_found(self, tmp_path: Path) -> None:
        for folder in [Path(entry) for entry in sys.path if Path(entry).name == "site-packages"]:
            for entry in folder.iterdir():
                # All that is installed here, but for what says that mpspmd is.
                if not entry.name.startswith(("mpspmd", "__editable__")):
                    link = tmp_path / entry.name
                    if not link.exists():
                        link.symlink_to(entry)
        (tmp_path / "mpspmd").symlink_to(Path(mpspmd.__file__).parent)
        program = (
            f"import sys; sys.path.append({str(tmp_path)!r})\n"
            "from mpspmd.cli.doctor.checks import Plan\n"
            "from mpspmd.cli.doctor.checks.software import vllm\n"
            "from mpspmd.config import RuntimeConfig\n"
            "for finding in vllm(Plan(2, RuntimeConfig())): print(finding.level, finding.found)"
        )
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", program],
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        assert done.stderr == ""
        assert done.stdout.splitlines()[-1] == "Level.FAILS mp_spmd is not installed"


def test_a_wrong_setting_is_found() -> None:
    code, output = _doctor("--seconds", "0", before="export MPSPMD_REPLY_RING_BYTES=1000;")
    assert code == 1
    assert "power of two" in _line(output, "settings")


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("MPSPMD_LOG_LEVEL", "loud", "MPSPMD_LOG_LEVEL='loud': must be one of"),
        ("MPSPMD_SECRET", "short", "the secret in MPSPMD_SECRET has 5 characters"),
        ("MPSPMD_SECRET_FILE", "/dev/null", "MPSPMD_SECRET_FILE='/dev/null' has 0 characters"),
    ],
)
def test_a_variable_that_no_run_can_use_is_found(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, told: str
) -> None:
    monkeypatch.setenv(name, text)
    (finding,) = settings(Plan(1, RuntimeConfig()))
    assert finding.level is Level.FAILS
    assert told in finding.found


def test_a_secret_with_a_slip_in_its_name_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPSPMD_SECRETS", "abcdefgh")
    found = [finding.found for finding in settings(Plan(1, RuntimeConfig()))]
    assert found == ["MPSPMD_SECRETS='…' is no setting, and is ignored"]


def test_measuring_records_no_requests(tmp_path: Path) -> None:
    path = tmp_path / "requests.rec"
    before = f"export MPSPMD_RECORD_REQUESTS={path};"
    code, _ = _doctor("--ranks", "1", "--seconds", "0.01", before=before)
    assert (code, os.listdir(tmp_path)) == (0, [])


def test_every_finding_that_matters_says_what_to_do() -> None:
    for check in CHECKS:
        for finding in _findings(check, 64):
            assert finding.subject
            assert finding.found
            assert finding.advice or finding.level is Level.OK
