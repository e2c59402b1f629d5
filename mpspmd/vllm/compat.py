"""Where vLLM's versions differ for an executor: what differs, since when, and what we do about it.

Each difference is looked for in the vLLM that is installed, so that a build between two releases counts as
what it is. All else that we use of vLLM is alike in every version of `TESTED`:

| since | what | where it matters |
| --- | --- | --- |
| 0.32 | `profile(delay_iterations=, max_iterations=)` | nowhere: vLLM's own `Executor.profile` |
| 0.32 | `SchedulerOutput` without `block_table_updates` | nowhere: the codec takes the class as it is |
| 0.33 | a watchdog in every process: `watchdog_config` | `has_watchdog`, `watchdog.py` |
| 0.33 | what a failed step has transferred is kept | `defers_outputs`, `transferred_by`, `salvage.py` |
| 0.33 | `SchedulerOutput.encoder_input_updates`, `skip_drafts` | nowhere: as above |
| 0.33 | `set_kv_cache_layout` takes two arguments | nowhere: vLLM's own method, which calls ours |
| 0.33 | a worker extension is told of its beginning and end | nowhere: vLLM's own wrapper does it |
"""

from __future__ import annotations

import importlib.util
import re
from typing import Any

TESTED = ("0.31", "0.32", "0.33")
"""Releases with which the tests have been run. `pyproject.toml` says the same."""


def has_watchdog() -> bool:
    """Since 0.33. It writes down all threads' stacks when a process makes no progress."""
    return importlib.util.find_spec("vllm.utils.watch_dog") is not None


def untested(version: str) -> str | None:
    """What to tell the user of a version that isn't in TESTED."""
    release = re.match(r"\d+\.\d+", version)
    if release is not None and release.group() in TESTED:
        return None
    return (
        f"mp-spmd has been tested with vLLM {TESTED[0]} to {TESTED[-1]}, and this is {version}: "
        "it may work; if it doesn't, use --distributed-executor-backend mp"
    )


def defers_outputs(aggregator: Any) -> bool:
    """Since 0.33. Whether it can be told of what ranks have transferred in a step that failed."""
    return hasattr(aggregator, "ft_defer_kv_connector_outputs")


def transferred_by(late: Any) -> Any:
    """What a rank has transferred in a step whose output can't be had, or None.

    `late` is an AsyncModelRunnerOutput, which has no such method before 0.33.
    """
    if not hasattr(late, "get_kv_connector_output"):
        return None
    transferred = late.get_kv_connector_output()
    return None if transferred is None or transferred.is_empty() else transferred
