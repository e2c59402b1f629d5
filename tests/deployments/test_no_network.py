"""Runs on one machine need no network and no name service; who does need one is told what is missing.

Each test runs in a network namespace of its own.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import pytest
from traces import HERE, Traces, skip_unless_it_works

from mpspmd.machine.network import unreachable

pytestmark = pytest.mark.timeout(180)


def _namespace(*commands: str) -> list[str]:
    """Runs what follows it in a network of its own, and with a host name that no file knows."""
    script = "; ".join(["set -e", "hostname nobody-knows-this", *commands, 'exec "$@"'])
    return ["unshare", "--net", "--uts", "--mount", "--", "sh", "-c", script, "sh"]


_LOOPBACK = "ip link set lo up"
_NO_NETWORK = _namespace()
_ONLY_LOOPBACK = _namespace(_LOOPBACK)
_ONLY_IPV6 = _namespace(_LOOPBACK, "ip addr del 127.0.0.1/8 dev lo")
# Its packets go nowhere: whoever asks that name server waits for ten seconds.
_DEAD_NAME_SERVER = _namespace(
    _LOOPBACK,
    "ip link add v0 type veth peer name v1",
    "ip link set v0 up",
    "ip link set v1 up",
    "ip addr add 10.231.18.1/24 dev v0",
    "ip neigh add 10.231.18.53 lladdr 02:00:00:00:00:01 dev v0",
    "mount -t tmpfs tmpfs /mnt",
    "echo nameserver 10.231.18.53 >/mnt/resolv.conf",
    "echo 127.0.0.1 localhost >/mnt/hosts",
    "mount --bind /mnt/resolv.conf /etc/resolv.conf",
    "mount --bind /mnt/hosts /etc/hosts",
)
_PROXIES = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://10.0.0.1:1")


def _run(
    traces: Traces, prefix: Sequence[str], *command: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    skip_unless_it_works(*prefix, "true")
    return traces.run(*command, prefix=prefix, timeout_s=80, **environment)


def test_an_engine_is_launched_without_any_network(traces: Traces) -> None:
    command = ("mpspmd-launch", "-n", "2", f"{HERE}/echo.py")
    done = _run(traces, _NO_NETWORK, *command, **_PROXIES)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")


def test_who_needs_a_network_without_one_is_told_at_once(traces: Traces) -> None:
    command = ("mpspmd-launch", "-n", "2", "--ranks-only", f"{HERE}/groups.py", "plain")
    done = _run(traces, _NO_NETWORK, *command, MASTER_ADDR="10.0.0.1", MASTER_PORT="1")
    assert done.returncode == 1
    assert "environment variable MASTER_ADDR expected, but not set" in done.stderr
    assert done.stderr.endswith(
        "mpspmd-launch: the loopback interface is down, so no process can use TCP or gloo: "
        "`ip link set lo up`\n"
    )
    alone = _run(traces, _NO_NETWORK, "groups.py", "engine")
    assert alone.returncode == 1
    assert "SegmentError: the loopback interface is down" in alone.stderr


@pytest.mark.parametrize(
    ("network", "how"),
    [
        (_ONLY_LOOPBACK, "plain"),
        (_ONLY_LOOPBACK, "engine"),
        (_ONLY_IPV6, "plain"),
        (_ONLY_IPV6, "engine"),
        (_DEAD_NAME_SERVER, "engine"),
    ],
    ids=["loopback-plain", "loopback-engine", "ipv6-plain", "ipv6-engine", "dead-name-server"],
)
def test_ranks_form_a_process_group_by_the_loopback_interface_alone(
    traces: Traces, network: Sequence[str], how: str
) -> None:
    options = ("-n", "2", *(["--ranks-only"] if how == "plain" else []))
    done = _run(traces, network, "mpspmd-launch", *options, f"{HERE}/groups.py", how)
    assert done.returncode == 0, done.stderr
    # One of PyTorch's own warnings, about the name of the loopback address, comes from plain ranks.
    assert "Traceback" not in done.stderr
    assert how == "plain" or done.stderr == ""
    assert sorted(done.stdout.splitlines()) == (
        ["[rank0] 3.0", "[rank1] 3.0"] if how == "plain" else ["3.0"]
    )


def test_nodes_that_cannot_meet_are_told_why_in_one_line(traces: Traces) -> None:
    options = ("-n", "1", "--ranks-only", "--nnodes", "2", "--rdzv-backend", "c10d")
    for host, reason in (
        ("node0.invalid", "the host name 'node0.invalid' can't be resolved"),
        ("10.231.18.2", "this machine has no route to '10.231.18.2'"),
    ):
        done = _run(
            traces,
            _ONLY_LOOPBACK,
            "mpspmd-launch",
            *options,
            "--rdzv-endpoint",
            f"{host}:1",
            "x.py",
        )
        assert done.returncode == 1
        assert done.stderr.startswith(f"mpspmd-launch: the nodes can't meet: {reason}")
        assert done.stderr.count("\n") == 1


def test_an_address_of_another_machine_is_refused_in_one_line(traces: Traces) -> None:
    options = ("-n", "1", "--local-addr", "10.231.18.2", "x.py")
    done = _run(traces, _ONLY_LOOPBACK, "mpspmd-launch", *options)
    assert done.returncode == 1
    assert "'10.231.18.2' is no address of this machine" in done.stderr
    assert done.stderr.count("\n") == 1


def test_this_machine_can_always_be_reached() -> None:
    assert unreachable("127.0.0.1") is None


@pytest.mark.parametrize(
    ("network", "found"),
    [
        (_NO_NETWORK, "fails network the loopback interface is down"),
        (_ONLY_LOOPBACK, "note network loopback at 127.0.0.1; the host name nobody-knows-this can't be"),
    ],
    ids=["no-network", "loopback"],
)  # fmt: skip
def test_the_doctor_names_it_beforehand(traces: Traces, network: Sequence[str], found: str) -> None:
    done = _run(traces, network, "mpspmd-doctor", "--seconds", "0")
    assert found in " ".join(done.stdout.split())


def test_a_check_of_the_network_tells_wrong_and_right_names() -> None:
    script = (
        "import sys\n"
        "from mpspmd.cli.doctor.checks.machine import _network\n"
        "for name in ('127.0.0.1', '203.0.113.7'):\n"
        "    print(_network('127.0.0.1', name).level.value)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.split() == ["ok", "note"], done.stderr
