"""The main module: how a spawned rank gets the classes and functions that the program defines in it.

A rank imports the main module again, as multiprocessing does, but later: when it can report to the engine
what the import raises. If the main module can't be imported (a notebook, `python -c`, standard input), its
classes and functions are pickled by value.
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
"""How to import the main module, for multiprocessing.spawn.prepare(). Empty if that is impossible."""

RANK_NAME = "mpspmd-rank-"
"""The names of ranks' processes begin with this."""

_get_preparation_data = spawn.get_preparation_data
_starting = threading.Lock()
_importing = False


class UnguardedMain(ConfigError):
    """The main module starts an engine when it is imported."""


def main_to_import(worker: object) -> Main:
    """How a process that this one spawns imports the main module. It must find `worker` there."""
    main = sys.modules.get("__main__")
    if _is_elsewhere(worker, main):
        return {}
    name = getattr(getattr(main, "__spec__", None), "name", None)
    if name is not None:
        # multiprocessing doesn't import the __main__.py of a package, a folder or an archive.
        return {} if f".{name}".endswith(".__main__") else {"init_main_from_name": name}
    path = getattr(main, "__file__", None)
    if not isinstance(path, str):
        return {}
    path = os.path.normpath(os.path.join(process.ORIGINAL_DIR or "", path))  # type: ignore[attr-defined]
    # Such as /dev/stdin, which is another file in each process.
    if path.startswith(("/dev/", "/proc/")) or not os.path.isfile(path):
        return {}
    # multiprocessing doesn't import IPython's own script.
    is_ipython = os.path.splitext(os.path.basename(path))[0] == "ipython"
    return {} if is_ipython else {"init_main_from_path": path}


def _is_elsewhere(worker: object, main: object) -> bool:
    """Whether the worker claims to be in the main module, and isn't.

    `python -m cProfile` and `-m trace` are the main module themselves. They run the script in a namespace
    that can't be imported.
    """
    name = getattr(worker, "__qualname__", "").partition(".")[0]
    is_its_own = getattr(worker, "__module__", None) == "__main__" and name.isidentifier()
    return is_its_own and not hasattr(main, name)


@contextlib.contextmanager
def without_main_module() -> Iterator[None]:
    """A rank that the body starts doesn't import the main module. It calls import_main() later."""
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
    # Another thread may start a process that isn't a rank at the same time.
    if name.startswith(RANK_NAME):
        for key in ("init_main_from_name", "init_main_from_path"):
            data.pop(key, None)
    return data


def import_main(main: Main) -> None:
    """On a rank, in its main thread."""
    global _importing
    this: Any = multiprocessing.current_process()
    # While _inheriting is set, multiprocessing refuses to spawn a process, but not to fork one. A forked
    # process inherits _importing.
    _importing = this._inheriting = True
    try:
        spawn.prepare(main)
    finally:
        _importing = False
        del this._inheriting


def refuse_while_main_is_imported() -> None:
    """Raises UnguardedMain when an imported main module starts an engine."""
    this = multiprocessing.current_process()
    if _importing or getattr(this, "_inheriting", False):
        raise UnguardedMain(
            "a rank imports the script to find the worker, and that starts one more engine: start it under "
            '`if __name__ == "__main__":`, and leave the worker outside'
        )


def dumps_with_main(value: Any) -> bytes:
    """Pickles for a process that is being spawned. What the main module defines is pickled by value."""
    import cloudpickle

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        # multiprocessing's own ways to pickle locks, sockets and tensors.
        dispatch_table = ChainMap(
            ForkingPickler(io.BytesIO()).dispatch_table, cloudpickle.Pickler.dispatch_table
        )

        def reducer_override(self, obj: Any) -> Any:
            # Some built-in classes, such as that of code objects, have no name in `builtins`.
            if issubclass(type(obj), type | FunctionType) and obj.__module__ in (
                "__main__",
                "builtins",
            ):
                return super().reducer_override(obj)
            return NotImplemented

    stream = io.BytesIO()
    Pickler(stream).dump(value)
    return stream.getvalue()
