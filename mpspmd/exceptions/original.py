"""Originals: a rank's exception is rebuilt in the engine without running the code of its class.

Pickling an exception runs methods of its class, which may wait for ever or end the process. So the rank
encodes what Python itself keeps of an exception (class, arguments, attributes, causes). The engine makes an
exception of that class without calling the constructor.
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
"""At most so many of a chain or a group are sent."""

_MAX_BYTES = 1 << 20
"""The limit of all pickled arguments and attributes together."""

_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: not set for classes that are built into CPython

# Python's own descriptors: a class or a metaclass may define attributes of the same names.
_OF_TYPES: Mapping[str, Any] = vars(type)
_OF_EXCEPTIONS: Mapping[str, Any] = vars(BaseException)


class _Exception(msgspec.Struct, array_like=True):
    """One exception. It refers to other exceptions by their index in the list."""

    module: str
    qualname: str
    args: bytes
    attributes: bytes
    cause: int | None
    context: int | None
    suppresses_context: bool


_Encoded = list[_Exception | None]
"""The exception, and all that it refers to; None for one that can't be sent."""
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[_Encoded] = msgspec.msgpack.Decoder(_Encoded)


class _TooMuch(Exception):
    """A limit is exceeded."""


def encode(error: BaseException) -> bytes | None:
    """On a rank. None if the exception is too large, or holds what can't be pickled."""
    encoded = _Encoding(error).exceptions()
    return None if encoded[0] is None else _encoder.encode(encoded)


def rebuild(data: bytes) -> BaseException | None:
    """In the engine. None if this process doesn't know its class, or the class of a value in it.

    Imports modules of the standard library only: another import may take long.
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


class _Stream(io.BytesIO):
    """Takes at most `limit` bytes."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def write(self, data: Any) -> int:
        if self.tell() + memoryview(data).nbytes > self._limit:
            raise _TooMuch
        return super().write(data)


class _Values(pickle.Pickler):
    """Pickles values.

    It writes an exception as its index, and a class of the main module as its name: pickle would look for
    that class in the rank's own main module, but the rank may have got the class by value.
    """

    def __init__(self, stream: _Stream, index_of: Callable[[BaseException], int]) -> None:
        super().__init__(stream, protocol=5)
        self._index_of = index_of

    def persistent_id(self, value: Any) -> int | str | None:
        # isinstance() would trust an object's own __class__.
        if issubclass(type(value), BaseException):
            return self._index_of(value)
        if issubclass(type(value), type) and _module_of(value) == "__main__":
            return qualname_of(value)
        return None


class _Encoding:
    """Encodes an exception, and all exceptions that it refers to."""

    def __init__(self, error: BaseException) -> None:
        self._found = [error]
        self._indices = {id(error): 0}
        self._bytes_left = _MAX_BYTES

    def exceptions(self) -> _Encoded:
        return [self._encode_one(each) for each in self._found]  # _index_of() appends to it

    def _index_of(self, error: BaseException) -> int:
        if id(error) not in self._indices:
            if len(self._found) == _MAX_EXCEPTIONS:
                raise _TooMuch
            self._indices[id(error)] = len(self._found)
            self._found.append(error)
        return self._indices[id(error)]

    def _encode_one(self, error: BaseException) -> _Exception | None:
        try:
            cls = type(error)
            # The method of the built-in class calls no code of the subclass.
            _, args, *state = _built_in_base(cls).__reduce__(error)  # type: ignore[misc]
            return _Exception(
                _module_of(cls),
                qualname_of(cls),
                self._pickled(args),
                self._pickled((state and state[0]) or {}),
                self._link(_OF_EXCEPTIONS["__cause__"].__get__(error)),
                self._link(_OF_EXCEPTIONS["__context__"].__get__(error)),
                _OF_EXCEPTIONS["__suppress_context__"].__get__(error),
            )
        except Terminated:
            raise
        except BaseException:  # a value's own code may raise anything
            return None

    def _pickled(self, value: Any) -> bytes:
        stream = _Stream(self._bytes_left)
        _Values(stream, self._index_of).dump(value)
        self._bytes_left -= stream.tell()
        return stream.getvalue()

    def _link(self, error: BaseException | None) -> int | None:
        with contextlib.suppress(_TooMuch):
            return None if error is None else self._index_of(error)
        return None


class _Rebuilding:
    """Makes each of the encoded exceptions once."""

    def __init__(self, encoded: _Encoded) -> None:
        self._encoded = encoded
        self._made: dict[int, BaseException] = {}

    def exception(self, index: int) -> BaseException:
        if index in self._made:
            return self._made[index]
        encoded = self._encoded[index]
        if encoded is None:
            raise LookupError("it could not be encoded")
        cls = _find(encoded.module, encoded.qualname)
        if not issubclass(type(cls), type) or not issubclass(cls, BaseException):
            raise LookupError(f"{encoded.qualname} is no exception here")
        base = _built_in_base(cls)
        args = self._values(encoded.args)
        error: BaseException = base.__new__(cls, *args)
        # Some built-in classes set their fields in __init__. The subclass's __init__ isn't called.
        base.__init__(error, *args)
        self._made[index] = error
        _set_attributes(error, base, self._values(encoded.attributes))
        # An assignment would call the class's own __setattr__. __cause__ sets __suppress_context__, too.
        for name, value in (
            ("__cause__", self._link(encoded.cause)),
            ("__context__", self._link(encoded.context)),
            ("__suppress_context__", encoded.suppresses_context),
        ):
            _OF_EXCEPTIONS[name].__set__(error, value)
        return error

    def _link(self, index: int | None) -> BaseException | None:
        with contextlib.suppress(Exception):
            return None if index is None else self.exception(index)
        return None

    def _values(self, pickled: bytes) -> Any:
        return _KnownValues(pickled, self.exception).load()


class _KnownValues(pickle.Unpickler):
    """Unpickles values whose classes this process knows."""

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
