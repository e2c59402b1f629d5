"""Originals: exceptions of a rank, rebuilt in the engine without running any code of theirs.

An exception class may pickle and unpickle itself as it likes: its code may wait for ever, or end the
process. So a rank takes down what Python itself keeps of an exception (class, arguments, attributes,
causes), and the engine makes one of that class without calling its constructor.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import pickle
import sys
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from mpspmd.exceptions.foreign import Terminated, is_perhaps_a_signals

_MAX_EXCEPTIONS = 100
"""Of a chain or a group."""

_MAX_BYTES = 1 << 20
"""Of all arguments and attributes."""

_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: not set for classes that are built into CPython

# Python's own attributes, which a class or a metaclass may have hidden behind others.
_OF_TYPES: Mapping[str, Any] = vars(type)
_OF_EXCEPTIONS: Mapping[str, Any] = vars(BaseException)


class _Exception(msgspec.Struct, array_like=True):
    """One exception. Others are named by their places in the list of all."""

    module: str
    qualname: str
    args: bytes
    attributes: bytes
    cause: int | None
    context: int | None
    suppresses_context: bool


_Taken = list[_Exception | None]
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Taken)


class _TooMuch(Exception):
    """A limit is exceeded."""


def take_down(error: BaseException) -> bytes | None:
    """On a rank. None if it holds what can't be pickled, or is too large."""
    found = [error]
    places = {id(error): 0}
    taken: _Taken = []
    space = _Space()

    def place_of(another: BaseException) -> int:
        if id(another) not in places:
            if len(found) == _MAX_EXCEPTIONS:
                raise _TooMuch
            places[id(another)] = len(found)
            found.append(another)
        return places[id(another)]

    for each in found:  # which grows meanwhile
        taken.append(_take_down_one(each, place_of, space))
    return None if taken[0] is None else _encoder.encode(taken)


def rebuild(data: bytes) -> BaseException | None:
    """In the engine. None if its class, or the class of a value in it, isn't known here.

    No module is imported for it, except from the standard library: an import may take long.
    """
    try:
        return _Rebuilding(_decoder.decode(data)).exception(0)
    except BaseException as error:
        if is_perhaps_a_signals(error):
            raise
        return None


def qualname_of(cls: type) -> str:
    name: str = _OF_TYPES["__qualname__"].__get__(cls)
    return name


def _module_of(cls: type) -> Any:
    return _OF_TYPES["__module__"].__get__(cls)


class _Space:
    """A stream that is full after a while."""

    def __init__(self) -> None:
        self._left = _MAX_BYTES
        self._stream = io.BytesIO()

    def begin(self) -> None:
        self._stream = io.BytesIO()

    def write(self, data: Any) -> None:
        size = memoryview(data).nbytes
        if size > self._left:
            raise _TooMuch
        self._left -= size
        self._stream.write(data)

    def content(self) -> bytes:
        return self._stream.getvalue()


class _Values(pickle.Pickler):
    """Pickles values; exceptions among them are named by their places, and classes of the main module by
    their names: there may be none of that name on the rank, which has got the class by value."""

    def __init__(self, stream: _Space, place_of: Callable[[BaseException], int]) -> None:
        super().__init__(stream, protocol=5)
        self._place_of = place_of

    def persistent_id(self, value: Any) -> int | str | None:
        # type(), and not isinstance(), which believes what __class__ says.
        if issubclass(type(value), BaseException):
            return self._place_of(value)
        if issubclass(type(value), type) and _module_of(value) == "__main__":
            return qualname_of(value)
        return None


def _take_down_one(
    error: BaseException, place_of: Callable[[BaseException], int], space: _Space
) -> _Exception | None:
    try:
        cls = type(error)
        # The built-in class's own, which calls nothing of the subclass.
        _, args, *state = _built_in_base(cls).__reduce__(error)  # type: ignore[misc]
        return _Exception(
            _module_of(cls),
            qualname_of(cls),
            _pickled(args, place_of, space),
            _pickled((state and state[0]) or {}, place_of, space),
            _place_of_link(_OF_EXCEPTIONS["__cause__"].__get__(error), place_of),
            _place_of_link(_OF_EXCEPTIONS["__context__"].__get__(error), place_of),
            _OF_EXCEPTIONS["__suppress_context__"].__get__(error),
        )
    except Terminated:
        raise
    except BaseException:  # a value's own code may raise anything
        return None


def _pickled(value: Any, place_of: Callable[[BaseException], int], space: _Space) -> bytes:
    space.begin()
    _Values(space, place_of).dump(value)
    return space.content()


def _place_of_link(
    error: BaseException | None, place_of: Callable[[BaseException], int]
) -> int | None:
    with contextlib.suppress(_TooMuch):
        return None if error is None else place_of(error)
    return None


class _Rebuilding:
    """Makes exceptions of what was taken down, each once."""

    def __init__(self, taken: _Taken) -> None:
        self._taken = taken
        self._made: dict[int, BaseException] = {}

    def exception(self, place: int) -> BaseException:
        if place in self._made:
            return self._made[place]
        taken = self._taken[place]
        if taken is None:
            raise LookupError("it could not be taken down")
        cls = _find(taken.module, taken.qualname)
        if not issubclass(type(cls), type) or not issubclass(cls, BaseException):
            raise LookupError(f"{taken.qualname} is no exception here")
        base = _built_in_base(cls)
        args = self._values(taken.args)
        error: BaseException = base.__new__(cls, *args)
        # Some built-in classes keep their fields here; the subclass's own isn't called.
        base.__init__(error, *args)
        self._made[place] = error
        _set_attributes(error, base, self._values(taken.attributes))
        error.__cause__ = self._link(taken.cause)
        error.__context__ = self._link(taken.context)
        error.__suppress_context__ = taken.suppresses_context
        return error

    def _link(self, place: int | None) -> BaseException | None:
        with contextlib.suppress(Exception):
            return None if place is None else self.exception(place)
        return None

    def _values(self, pickled: bytes) -> Any:
        return _KnownValues(pickled, self.exception).load()


class _KnownValues(pickle.Unpickler):
    """Rebuilds values of classes that this process knows."""

    def __init__(self, pickled: bytes, exception: Callable[[int], BaseException]) -> None:
        super().__init__(io.BytesIO(pickled))
        self._exception = exception

    def persistent_load(self, which: int | str) -> Any:
        return self._exception(which) if isinstance(which, int) else _find("__main__", which)

    def find_class(self, module: str, name: str) -> Any:
        return _find(module, name)


def _find(module: str, qualname: str) -> Any:
    if module not in sys.modules:
        if module.partition(".")[0] not in sys.stdlib_module_names:
            raise LookupError(f"{module} isn't imported here")
        importlib.import_module(module)
    found: Any = sys.modules[module]
    for name in qualname.split("."):
        found = vars(found)[name]
    return found


def _built_in_base(cls: type) -> type[BaseException]:
    for base in _OF_TYPES["__mro__"].__get__(cls):
        if not _OF_TYPES["__flags__"].__get__(base) & _HEAP_TYPE:
            built_in: type[BaseException] = base
            return built_in
    raise LookupError("no class without a built-in base")


def _set_attributes(
    error: BaseException, base: type[BaseException], attributes: Mapping[str, Any]
) -> None:
    kept: dict[str, Any] = _OF_EXCEPTIONS["__dict__"].__get__(error)
    for name, value in attributes.items():
        if hasattr(base, name):  # a field of the built-in class, such as ImportError.path
            object.__setattr__(error, name, value)
        else:
            kept[name] = value
