"""What the control groups of a process let it take."""

from __future__ import annotations

from pathlib import Path

import pytest

from mpspmd.machine import cgroup


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With control groups of version 2; this process is in /outer/inner."""
    (tmp_path / "outer" / "inner").mkdir(parents=True)
    told = {
        "/proc/self/cgroup": "0::/outer/inner\n",
        "/proc/self/mountinfo": f"35 25 0:30 / {tmp_path} rw - cgroup2 cgroup2 rw\n",
    }
    real = cgroup._read
    monkeypatch.setattr(cgroup, "_read", lambda path: told.get(str(path)) or real(path))
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


@pytest.mark.parametrize(
    ("text", "kills"),
    [
        ("low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n", 2),
        ("oom_kill_disable 0\nunder_oom 0\noom_kill 7\n", 7),
        ("oom_kill_disable 1\nunder_oom 0\n", 0),  # Linux before 4.13
        ("pgmajfault 5\noom_kill 1\n", 1),
        ("oom_kill -\n", 0),
        ("", 0),
        (None, 0),
    ],
)
def test_kills_are_counted_in_each_form_of_the_text(text: str | None, kills: int) -> None:
    assert cgroup.oom_kills_in(text) == kills
