"""Workers whose code raises what few expect. Every rank imports this."""

from __future__ import annotations

import asyncio
import os
import sys
import time
import types
from collections.abc import Callable
from typing import Any

import mpspmd


class GreenletExit(BaseException):
    """As greenlet's, trio's Cancelled, or a test framework's outcome: none is an Exception."""


def everything_that_is_no_exception() -> dict[str, BaseException]:
    return {
        "CancelledError": asyncio.CancelledError("cancelled"),
        "GreenletExit": GreenletExit("cancelled"),
        "KeyboardInterrupt": KeyboardInterrupt("cancelled"),
        "GeneratorExit": GeneratorExit("cancelled"),
        "BaseExceptionGroup": BaseExceptionGroup("cancelled", [GreenletExit("x")]),
    }


class Hook:
    """Raises when it is pickled, or when it is unpickled."""

    def __init__(self, name: str, when: str, but_in: int = -1) -> None:
        self.name = name
        self.when = when
        self.but_in = but_in

    def __getstate__(self) -> dict[str, Any]:
        if self.when == "pickled" and os.getpid() != self.but_in:
            raise everything_that_is_no_exception()[self.name]
        return self.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.when == "unpickled" and os.getpid() != self.but_in:
            raise everything_that_is_no_exception()[self.name]


class Touchy(Exception):
    """Runs code of its own when it is pickled, rebuilt, printed or looked at."""

    needed: Any

    def __init__(self, act: Callable[[], Any], needed: Any) -> None:
        super().__init__("touchy")
        super().__setattr__("needed", needed)

    def __reduce__(self) -> Any:
        return _act, (self.args,)

    def __setstate__(self, state: Any) -> None:
        _act()

    __getstate__ = __deepcopy__ = __setstate__

    def __setattr__(self, name: str, value: Any) -> None:
        _act()
        super().__setattr__(name, value)


def _act(*args: Any) -> None:
    how = os.environ.get("TOUCHY", "sleep")
    if how == "sleep":
        time.sleep(60)
    if how == "exit":
        os._exit(9)
    sys.exit(9)


class Liar(Exception):
    """Says that it is something else, and refuses to be printed."""

    __module__ = "builtins"

    @property
    def __class__(self) -> Any:  # type: ignore[override]
        return dict

    @property
    def __cause__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("no cause")

    def __reduce__(self) -> Any:
        return dict, ()

    def __str__(self) -> str:
        raise GreenletExit("no text")

    __repr__ = __str__


class Detailed(ValueError):
    """Its constructor takes other arguments than its base has."""

    def __init__(self, code: int, *, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason


class Raiser(mpspmd.Worker):
    """Raises what it is told, where it is told."""

    def __init__(self, ctx: mpspmd.RankContext, where: str = "", name: str = "") -> None:
        super().__init__(ctx)
        self._where = where
        self._name = name
        self._raise_in("constructor")

    def _raise_in(self, where: str) -> None:
        if self._where == where:
            if self._name == "exit":
                sys.exit(f"no weights in {where}")
            raise everything_that_is_no_exception()[self._name]

    def __getattr__(self, name: str) -> Any:
        if name == "unaskable":
            raise GreenletExit(name)
        raise AttributeError(name)

    def rank(self) -> int:
        return self.ctx.rank

    def echo(self, value: Any) -> Any:
        return value

    def hook(self, name: str, when: str) -> Hook:
        return Hook(name, when, os.getpid() if when == "unpickled" else -1)

    def throw(self, name: str) -> None:
        raise everything_that_is_no_exception()[name]

    def leave(self, code: Any) -> None:
        sys.exit(code)

    def raise_(self, kind: str) -> None:
        raise getattr(self, f"make_{kind}")()

    def make_foreign(self) -> BaseException:
        module = types.ModuleType("only_on_the_rank")
        sys.modules[module.__name__] = module
        error = type("Foreign", (ValueError,), {"__module__": module.__name__})
        module.__dict__["Foreign"] = error
        return error("who knows me?")

    def make_touchy(self) -> BaseException:
        return Touchy(_act, 1)

    def make_detailed(self) -> BaseException:
        return Detailed(7, reason="too late")

    def make_lying(self) -> BaseException:
        return Liar("lies")

    def make_huge(self) -> BaseException:
        return ValueError("begin" + "x" * (100 << 20) + "end")

    def make_recursive(self) -> BaseException:
        error = ValueError("round")
        error.args = ("round", [error])
        error.__cause__ = other = KeyError("and")
        other.__cause__ = error
        return error

    def make_endless_chain(self) -> BaseException:
        error = first = ValueError("0")
        for number in range(1, 2000):
            error.__cause__ = ValueError(str(number))
            error = error.__cause__
        return first

    def make_group(self) -> BaseException:
        first = ValueError("first")
        first.add_note("a note")
        first.__cause__ = OSError(2, "not there", "weights.bin")
        return ExceptionGroup("both", [first, Detailed(8, reason="second")])

    def make_decode(self) -> BaseException:
        return UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")

    def start_reply_thread(self) -> None:
        self._raise_in("start_reply_thread")

    def finish_reply(self, result: Any) -> Any:
        self._raise_in("finish_reply")
        return result

    def shutdown(self) -> None:
        self._raise_in("shutdown")


class ThreadedRaiser(Raiser):
    reply_thread = True
