"""The plugin that vLLM loads in each of its processes: it makes the name `mp-spmd` known.

vLLM takes any string for `distributed_executor_backend` and only later asks what it means. Two places
have to know: `Executor.get_class`, and the check that refuses pipeline parallelism to strangers.

Subclasses of our executor, given as a class or by their path, are treated as our executor is.
"""

from __future__ import annotations

import functools
import logging
import sys
from typing import Any, TypeGuard

logger = logging.getLogger(__name__)

BACKEND = "mp-spmd"

_MARK = "_mpspmd_wrapped"


def register() -> None:
    """The entry point in `vllm.general_plugins`. May be called any number of times; never raises:
    an exception here would break every vLLM in the environment, also those that don't use it."""
    try:
        _wrap_get_class()
        _wrap_feature_check()
    except Exception:
        logger.warning(
            "mpspmd doesn't know this version of vLLM: %r is not available", BACKEND, exc_info=True
        )


def _wrap_get_class() -> None:
    from vllm.v1.executor.abstract import Executor

    original = Executor.get_class
    if hasattr(original, _MARK):
        return

    @functools.wraps(original)
    def get_class(vllm_config: Any) -> Any:
        parallel_config = vllm_config.parallel_config
        if parallel_config.distributed_executor_backend == BACKEND:
            from mpspmd.vllm.executor import MpSpmdExecutor

            chosen: Any = MpSpmdExecutor
        else:
            chosen = original(vllm_config)
        if _is_ours(chosen):
            from mpspmd.transport.descriptor import open_standard_descriptors
            from mpspmd.vllm import engine_place, faults

            # vLLM asks where it is about to start an engine.
            open_standard_descriptors()
            faults.chain_causes()
            faults.open_faults()
            engine_place.note_engines(parallel_config)
        return chosen

    setattr(get_class, _MARK, True)
    Executor.get_class = staticmethod(get_class)


def _wrap_feature_check() -> None:
    from vllm.engine.arg_utils import EngineArgs

    original = EngineArgs._check_feature_supported
    if hasattr(original, _MARK):
        return

    @functools.wraps(original)
    def check(self: Any, *args: Any, **kwargs: Any) -> Any:
        backend = self.distributed_executor_backend
        if not _supports_what_mp_does(backend):
            return original(self, *args, **kwargs)
        # The check goes by name.
        self.distributed_executor_backend = "mp"
        try:
            return original(self, *args, **kwargs)
        finally:
            self.distributed_executor_backend = backend

    setattr(check, _MARK, True)
    EngineArgs._check_feature_supported = check


def _supports_what_mp_does(backend: Any) -> bool:
    if backend == BACKEND:
        return True
    chosen = _class_at(backend) if isinstance(backend, str) else backend
    return _is_ours(chosen) and bool(getattr(chosen, "supports_pp", False))


def _class_at(path: str) -> Any:
    """What vLLM will find there; None if it will find nothing, and say so itself."""
    if "." not in path:
        return None  # one of vLLM's own names
    from vllm.utils.import_utils import resolve_obj_by_qualname

    try:
        return resolve_obj_by_qualname(path)
    except Exception:
        return None


def _is_ours(chosen: Any) -> TypeGuard[type]:
    # Whoever has a subclass has loaded our module; for the others it stays unloaded.
    module = sys.modules.get("mpspmd.vllm.executor")
    return (
        module is not None
        and isinstance(chosen, type)
        and issubclass(chosen, module.MpSpmdExecutor)
    )
