"""The versions of what a run consists of, for dumps and recordings."""

from __future__ import annotations

import contextlib
import platform

from mpspmd import __version__

_PACKAGES = ("torch", "vllm")


def versions() -> dict[str, str]:
    from importlib import metadata  # its import takes 10 ms, and most runs don't need it

    found = {
        "mpspmd": __version__,
        "python": platform.python_version(),
        "kernel": platform.release(),
    }
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found
