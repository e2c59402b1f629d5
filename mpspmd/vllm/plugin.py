"""The plugin that vLLM loads in each of its processes: it makes the name `mp-spmd` known.

vLLM takes any string for `distributed_executor_backend` and only later asks what it means. Two places
have to know: `Executor.get_class`, and the check that refuses pipeline parallelism to strangers.
"""

from __future__ import annotations

import functools
import logging
from typing import Any

logger = logging.getLogger(__name__)

BACKEND = "mp-spmd"
CLASS_PATH = "mpspmd.vllm.executor.MpSpmdExecutor"

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
        backend = vllm_config.parallel_config.distributed_executor_backend
        if backend in (BACKEND, CLASS_PATH):
            from mpspmd.transport.descriptor import open_standard_descriptors
            from mpspmd.vllm import faults
            from mpspmd.vllm.executor import MpSpmdExecutor

            # vLLM asks where it is about to start an engine.
            open_standard_descriptors()
            faults.chain_causes()
            faults.open_faults()
            return MpSpmdExecutor
        return original(vllm_config)

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
        if backend not in (BACKEND, CLASS_PATH):
            return original(self, *args, **kwargs)
        # All that `mp` supports is supported; the check goes by name.
        self.distributed_executor_backend = "mp"
        try:
            return original(self, *args, **kwargs)
        finally:
            self.distributed_executor_backend = backend

    setattr(check, _MARK, True)
    EngineArgs._check_feature_supported = check
