"""Programs in environments that others have filled."""

from __future__ import annotations

import pytest
from traces import Traces

pytestmark = pytest.mark.timeout(90)

LINKS = {
    "MPSPMD_SERVICE_HOST": "10.0.0.1",
    "MPSPMD_SERVICE_PORT": "8000",
    "MPSPMD_SERVICE_PORT_HTTP": "8000",
    "MPSPMD_PORT": "tcp://10.0.0.1:8000",
    "MPSPMD_PORT_8000_TCP": "tcp://10.0.0.1:8000",
    "MPSPMD_PORT_8000_TCP_PROTO": "tcp",
    "MPSPMD_PORT_8000_TCP_PORT": "8000",
    "MPSPMD_PORT_8000_TCP_ADDR": "10.0.0.1",
    "MPSPMD_WAIT_SERVICE_HOST": "10.0.0.2",
    "MPSPMD_WAIT_PORT": "tcp://10.0.0.2:80",
}


def test_a_service_of_our_name_disturbs_nothing(traces: Traces) -> None:
    done = traces.run("echo.py", "1", **LINKS)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")


def test_a_misspelt_setting_is_told_once_and_stops_nothing(traces: Traces) -> None:
    done = traces.run("echo.py", "1", MPSPMD_WAITS="park")
    assert (done.returncode, done.stdout) == (0, "ok\n")
    assert done.stderr.count("MPSPMD_WAITS='park' is no setting") == 1
    assert "did you mean MPSPMD_WAIT?" in done.stderr


def test_a_setting_with_a_bad_value_is_refused_by_its_name(traces: Traces) -> None:
    done = traces.run("echo.py", "1", MPSPMD_WAIT="soon")
    assert done.returncode == 1
    assert "ConfigError: MPSPMD_WAIT: wait='soon': must be one of" in done.stderr


@pytest.mark.parametrize("text", ["", "tcp://10.0.0.1:8000", "{}", '{"rank": "0"}', "[1]"])
def test_a_part_that_no_launcher_has_given_is_refused_by_its_name(
    traces: Traces, text: str
) -> None:
    done = traces.run("echo.py", "1", MPSPMD_LAUNCH=text)
    assert done.returncode == 1
    assert f"ConfigError: MPSPMD_LAUNCH={text!r}" in done.stderr
    assert "unset it" in done.stderr


def test_the_doctor_names_links_and_misspelt_settings(traces: Traces) -> None:
    done = traces.run("mpspmd-doctor", "--seconds", "0", MPSPMD_WAITS="park", **LINKS)
    assert "MPSPMD_PORT, " in done.stdout
    assert "enableServiceLinks: false" in done.stdout
    assert "MPSPMD_WAITS='park' is no setting" in done.stdout
    assert "call it MPSPMD_WAIT, if that was meant" in done.stdout
