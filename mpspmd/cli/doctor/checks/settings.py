"""Settings: environment variables that look like settings but aren't."""

from __future__ import annotations

import os
from collections.abc import Iterator

from mpspmd.cli.doctor.checks.finding import Finding, Plan, note, ok
from mpspmd.config import is_service_link, known_variables, nearest_variable, unknown_variables


def settings(plan: Plan) -> Iterator[Finding]:
    links = [name for name, text in os.environ.items() if is_service_link(name, text)]
    if links:
        yield ok(
            "settings",
            f"a Kubernetes service sets {', '.join(sorted(links))}; they are ignored",
            "enableServiceLinks: false in the pod's spec keeps them away",
        )
    for name in sorted(unknown_variables(os.environ)):
        nearest = nearest_variable(name)
        advice = f"unset it; the settings are {', '.join(known_variables())}"
        if nearest:
            advice = f"unset it, or call it {nearest}, if that was meant"
        found = f"{name}={os.environ[name]!r} is no setting, and is ignored"
        yield note("settings", found, advice)
