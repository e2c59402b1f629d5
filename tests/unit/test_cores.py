"""How many cores a process may use, from what the kernel's files say."""

from __future__ import annotations

from pathlib import Path

import pytest

from mpspmd.machine.cgroup import (
    folders,
    free_bytes,
    parse_groups,
    parse_mounts,
    quota_v1,
    quota_v2,
)
from mpspmd.machine.cores import count_cores

V1 = """\
22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 {root} /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
36 31 0:30 {root} /sys/fs/cgroup/memory rw,relatime shared:10 - cgroup cgroup rw,memory
37 31 0:31 {root} /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
"""
V2 = """\
22 1 8:1 / / rw,relatime - overlay overlay rw,lowerdir=/a - b
35 25 0:30 {root} /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate
"""
HYBRID = V1 + "41 31 0:38 {root} /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
CPU_V1 = Path("/sys/fs/cgroup/cpu,cpuacct")


@pytest.mark.parametrize(
    ("mountinfo", "root", "groups", "controller", "expected"),
    [
        # On the host: every group up to the root of the hierarchy.
        (V1, "/", "4:cpu,cpuacct:/a/b\n", "cpu", [CPU_V1 / "a/b", CPU_V1 / "a", CPU_V1]),
        (V2, "/", "0::/a/b\n", "cgroup2", ["/sys/fs/cgroup/a/b", "/sys/fs/cgroup/a", "/sys/fs/cgroup"]),
        # Docker with version 1: the host's path, and the container's own group is mounted.
        (V1, "/docker/abc", "4:cpu,cpuacct:/docker/abc\n", "cpu", [CPU_V1]),
        (V1, "/docker/abc", "4:cpuacct,cpu:/docker/abc/job\n", "cpu", [CPU_V1 / "job", CPU_V1]),
        # A control-group namespace: its root is what is mounted.
        (V2, "/", "0::/\n", "cgroup2", ["/sys/fs/cgroup"]),
        (HYBRID, "/", "1:cpu:/\n0::/\n", "cgroup2", ["/sys/fs/cgroup/unified"]),
        # The process's group lies outside of what is mounted, or of its namespace.
        (V1, "/docker/abc", "4:cpu,cpuacct:/docker/abcd\n", "cpu", [CPU_V1]),
        (V2, "/", "0::/../other\n", "cgroup2", ["/sys/fs/cgroup"]),
        (V2, "/..", "0::/\n", "cgroup2", ["/sys/fs/cgroup"]),
        # A path with a colon.
        (V2, "/", "0::/a:b\n", "cgroup2", ["/sys/fs/cgroup/a:b", "/sys/fs/cgroup"]),
        # Nothing is mounted, or nothing is known of the process.
        ("", "/", "0::/a\n", "cgroup2", []),
        (V1, "/", "", "cpu", [CPU_V1]),
        (V2, "/", "0::/a\n", "cpu", []),
    ],
)  # fmt: skip
def test_the_groups_of_a_process_are_found_where_they_are_mounted(
    mountinfo: str, root: str, groups: str, controller: str, expected: list[str | Path]
) -> None:
    mounts = parse_mounts(mountinfo.format(root=root))
    assert folders(mounts, parse_groups(groups), controller) == [Path(path) for path in expected]


def test_the_mount_that_has_the_process_in_it_comes_before_any_other() -> None:
    other = V2.format(root="/docker/other").replace("/sys/fs/cgroup", "/host/cgroup")
    mounts = parse_mounts(other + V2.format(root="/docker/mine"))
    groups = parse_groups("0::/docker/mine\n")
    assert folders(mounts, groups, "cgroup2") == [Path("/sys/fs/cgroup")]


def test_a_space_in_a_mounts_path_is_one() -> None:
    (mount,) = parse_mounts(r"35 25 0:30 / /a\040b rw - cgroup2 cgroup2 rw")
    assert mount.point == "/a b"


@pytest.mark.parametrize(
    ("quota", "period", "expected"),
    [
        ("150000\n", "100000\n", 1.5),
        ("10000\n", "50000\n", 0.2),
        ("-1\n", "100000\n", None),
        (None, None, None),
        ("150000\n", None, None),
        ("150000\n", "0\n", None),
        ("nonsense\n", "100000\n", None),
    ],
)
def test_the_quota_of_version_1(
    quota: str | None, period: str | None, expected: float | None
) -> None:
    assert quota_v1(quota, period) == expected


@pytest.mark.parametrize(
    ("cpu_max", "expected"),
    [
        ("150000 100000\n", 1.5),
        ("max 100000\n", None),
        ("max\n", None),
        ("", None),
        (None, None),
    ],
)
def test_the_quota_of_version_2(cpu_max: str | None, expected: float | None) -> None:
    assert quota_v2(cpu_max) == expected


@pytest.mark.parametrize(
    ("limit", "used", "expected"),
    [("1000\n", "300\n", 700), ("max\n", "300\n", None), (None, "300\n", None), ("1000\n", None, None)],
)  # fmt: skip
def test_what_is_left_of_a_limit(limit: str | None, used: str | None, expected: int | None) -> None:
    assert free_bytes(limit, used) == expected


@pytest.mark.parametrize(
    ("allowed", "quota", "expected"),
    [(8, None, 8), (8, 1.5, 1), (8, 0.2, 1), (8, 3.0, 3), (2, 16.0, 2), (1, 0.01, 1)],
)
def test_a_quota_counts_like_whole_cores(allowed: int, quota: float | None, expected: int) -> None:
    assert count_cores(allowed, quota) == expected
