"""The rows, a module for each subject."""

from __future__ import annotations

import importlib
import pkgutil


def load() -> None:
    """Registers all of them, in the order of the modules' names."""
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name):
        importlib.import_module(f"{__name__}.{module.name}")
