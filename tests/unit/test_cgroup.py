"""Which control groups limit a process."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from mpspmd import cgroup

V1 = "9:name=systemd:/x\n8:pids:/docker/ab\n4:cpu,cpuacct:/\n0::/\n"
V2 = "0::/system.slice/a.service\n"


def test_a_group_is_found_by_its_controller() -> None:
    unified = [("", PurePosixPath("/")), ("unified", PurePosixPath("/"))]
    pids = PurePosixPath("/docker/ab")
    assert cgroup.memberships(V1, "pids") == [("pids", pids), ("pids", pids), *unified]
    names = [name for name, _ in cgroup.memberships(V1, "cpu")]
    assert names == ["cpu", "cpu,cpuacct", "", "unified"]
    assert cgroup.memberships(V2, "memory")[0] == ("", PurePosixPath("/system.slice/a.service"))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With control groups of version 2; this process is in /outer/inner."""
    (tmp_path / "membership").write_text("0::/outer/inner\n")
    (tmp_path / "outer" / "inner").mkdir(parents=True)
    real = cgroup._read

    def read(path: Path) -> str | None:
        own = path == Path("/proc/self/cgroup")
        return real(tmp_path / "membership" if own else path)

    monkeypatch.setattr(cgroup, "_ROOT", tmp_path)
    monkeypatch.setattr(cgroup, "_read", read)
    return tmp_path


def test_the_tightest_of_the_groups_counts(machine: Path) -> None:
    outer, inner = machine / "outer", machine / "outer" / "inner"
    assert (cgroup.memory_left(), cgroup.pids_limit(), cgroup.cpu_quota()) == (None, None, None)
    for group, memory, pids, cpu in ((outer, 5000, "20", "50000"), (inner, 9000, "max", "max")):
        (group / "memory.max").write_text(str(memory))
        (group / "memory.current").write_text("2000")
        (group / "pids.max").write_text(pids)
        (group / "cpu.max").write_text(f"{cpu} 100000")
    assert (cgroup.memory_left(), cgroup.pids_limit(), cgroup.cpu_quota()) == (3000, 20, 0.5)


def test_what_caches_files_on_disks_is_free(machine: Path) -> None:
    inner = machine / "outer" / "inner"
    (inner / "memory.max").write_text("5000\n")
    (inner / "memory.current").write_text("4900\n")
    (inner / "memory.stat").write_text(
        "anon 1000\nshmem 900\ninactive_file 2000\nactive_file 1000\n"
    )
    assert cgroup.memory_left() == 3100
