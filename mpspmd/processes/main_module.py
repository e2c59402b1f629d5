"""The main module: how a spawned rank gets the classes and functions that the program defines in it.

A rank imports the main module again, as multiprocessing does it, but later: when it can tell the engine
what that has raised. Where there is nothing to import (a notebook, `python -c`, standard input), what is
defined in the main module travels by value.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import sys
import threading
from collections import ChainMap
from collections.abc import Iterator
from multiprocessing import process, spawn
from multiprocessing.reduction import ForkingPickler
from types import FunctionType
from typing import Any, TypeAlias

from mpspmd.errors import ConfigError

Main: TypeAlias = dict[str, str]
"""How the main module is imported, as multiprocessing.spawn.prepare() takes it. Empty: it can't be."""

RANK_NAME = "mpspmd-rank-"
"""What the name of a rank's process begins with."""

_get_preparation_data = spawn.get_preparation_data
_starting = threading.Lock()
_importing = False


class UnguardedMain(ConfigError):
    """The main module starts a run whenever it is imported."""


def main_to_import(worker: object = None) -> Main:
    """Of this process, for a process that it spawns. `worker` is what is to be found there."""
    main = sys.modules.get("__main__")
    if _is_elsewhere(worker, main):
        return {}
    name = getattr(getattr(main, "__spec__", None), "name", None)
    if name is not None:
        # The __main__.py of a package, a folder or an archive isn't imported by multiprocessing.
        return {} if f".{name}".endswith(".__main__") else {"init_main_from_name": name}
    path = getattr(main, "__file__", None)
    if not isinstance(path, str):
        return {}
    path = os.path.normpath(os.path.join(process.ORIGINAL_DIR or "", path))  # type: ignore[attr-defined]
    # Standard input may be called /dev/stdin, and is another one in each process.
    if path.startswith(("/dev/", "/proc/")) or not os.path.isfile(path):
        return {}
    # multiprocessing doesn't import IPython's own script.
    is_ipython = os.path.splitext(os.path.basename(path))[0] == "ipython"
    return {} if is_ipython else {"init_main_from_path": path}


def _is_elsewhere(worker: object, main: object) -> bool:
    """Whether the worker says that it is the main module's, and isn't there.

    `python -m cProfile` and `-m trace` run a script in a namespace that nobody can import, and are the main
    module themselves.
    """
    name = getattr(worker, "__qualname__", "").partition(".")[0]
    is_its_own = getattr(worker, "__module__", None) == "__main__" and name.isidentifier()
    return is_its_own and not hasattr(main, name)


@contextlib.contextmanager
def left_to_the_rank() -> Iterator[None]:
    """Within, a rank's process is started without the main module: it calls import_main() itself."""
    with _starting:
        spawn.get_preparation_data = _preparation_data
        try:
            yield
        finally:
            spawn.get_preparation_data = _get_preparation_data


def _preparation_data(name: str) -> dict[str, Any]:
    main = sys.modules["__main__"]
    if not hasattr(main, "__spec__"):  # `python -m pdb` has cleared the module
        main.__spec__ = None
    data: dict[str, Any] = _get_preparation_data(name)
    # Another thread may start a process of its own in this moment.
    if name.startswith(RANK_NAME):
        for key in ("init_main_from_name", "init_main_from_path"):
            data.pop(key, None)
    return data


def import_main(main: Main) -> None:
    """On a rank, in its main thread."""
    global _importing
    this: Any = multiprocessing.current_process()
    # By this multiprocessing knows that no process may be started yet. It doesn't look before it forks,
    # and a forked process inherits our own variable.
    _importing = this._inheriting = True
    try:
        spawn.prepare(main)
    finally:
        _importing = False
        del this._inheriting


def refuse_while_main_is_imported() -> None:
    """UnguardedMain when the main module starts an engine, and isn't what the user has started."""
    this = multiprocessing.current_process()
    if _importing or getattr(this, "_inheriting", False):
        raise UnguardedMain(
            "a rank imports the script to find the worker, and that starts one more engine: start it under "
            '`if __name__ == "__main__":`, and leave the worker outside'
        )


def dumps_with_main(value: Any) -> bytes:
    """Pickles for a process that is being spawned; what the main module defines goes by value."""
    import cloudpickle

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        # Locks, sockets and tensors go as multiprocessing sends them.
        dispatch_table = ChainMap(
            ForkingPickler(io.BytesIO()).dispatch_table, cloudpickle.Pickler.dispatch_table
        )

        def reducer_override(self, obj: Any) -> Any:
            # Classes such as that of code objects are built in and have no name there.
            if issubclass(type(obj), type | FunctionType) and obj.__module__ in (
                "__main__",
                "builtins",
            ):
                return super().reducer_override(obj)
            return NotImplemented

    stream = io.BytesIO()
    Pickler(stream).dump(value)
    return stream.getvalue()
