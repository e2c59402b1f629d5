"""Rows: what else can be asked of an engine and its workers."""

from __future__ import annotations

from typing import Any

from parity.feature import Place, row
from parity.rows.a_generation import PROMPTS, generate


def outcome(call: Any) -> Any:
    """What it returns, or the type of what it raises."""
    try:
        return call()
    except Exception as error:
        return f"raises {type(error).__name__}"


@row("extension", "worker extension class, `collective_rpc` with arguments and callables")
def extension(llm: Any, place: Place) -> Any:
    return [
        llm.collective_rpc("where_am_i"),
        llm.collective_rpc("where_am_i", kwargs={"greeting": "hello"}),
        llm.collective_rpc("add", args=(3,), kwargs={"b": 4}),
        llm.collective_rpc(lambda worker: worker.rank),
        llm.collective_rpc("check_health"),
    ]


# Each is its engine's last row: to the calls that follow a failed one `mp` gives late answers.
RAISES, RANKS = "raises Exception", ["rank 0", "rank 1"]


@row(
    "rpc-unknown",
    "`collective_rpc` of a method that isn't there, then right ones",
    engine="ngram",
    last=True,
    right=[RAISES, RANKS, RANKS],
)
def unknown(llm: Any, place: Place) -> Any:
    return [
        outcome(lambda: llm.collective_rpc("no_such_method")),
        outcome(lambda: llm.collective_rpc("where_am_i")),
        outcome(lambda: llm.collective_rpc("where_am_i")),
    ]


@row(
    "rpc-raises",
    "`collective_rpc` that raises on one rank, then right ones",
    engine="draft",
    last=True,
    right=[[RAISES, RANKS, [1, 2]]] * 2,
)
def raises(llm: Any, place: Place) -> Any:
    return [
        [
            outcome(lambda rank=rank: llm.collective_rpc("fail_on", args=(rank,))),
            outcome(lambda: llm.collective_rpc("where_am_i")),
            outcome(lambda: llm.collective_rpc("add", args=(1,))),
        ]
        for rank in (0, 1)
    ]


@row(
    "rpc-timeout",
    "`collective_rpc` whose time is up, then right ones",
    engine="example-kv",
    last=True,
    right=[RAISES, RANKS, RANKS],
)
def times_out(llm: Any, place: Place) -> Any:
    def slow(worker: Any) -> str:
        import time

        time.sleep(1.0)
        return "late"

    return [
        outcome(lambda: llm.collective_rpc(slow, timeout=0.2)),
        outcome(lambda: llm.collective_rpc("where_am_i")),
        outcome(lambda: llm.collective_rpc("where_am_i")),
    ]


@row("resets", "reset of prefix, multi-modal and encoder cache")
def resets(llm: Any, place: Place) -> Any:
    engine = llm.llm_engine
    return [
        engine.reset_prefix_cache(),
        engine.reset_mm_cache(),
        outcome(engine.reset_encoder_cache),
        generate(llm, PROMPTS[:2]),
    ]


@row("apply-model", "`apply_model`")
def apply_model(llm: Any, place: Place) -> Any:
    def describe(model: Any) -> list[Any]:
        return [type(model).__name__, sum(each.numel() for each in model.parameters())]

    return llm.apply_model(describe)


@row("reload", "`update_config`, `reload_weights`")
def reload(llm: Any, place: Place) -> Any:
    return [
        outcome(
            lambda: llm.collective_rpc(
                "update_config", args=({"load_config": {"load_format": "auto"}},)
            )
        ),
        outcome(lambda: llm.collective_rpc("reload_weights")),
        generate(llm, PROMPTS[:4]),
    ]


@row("save-sharded", "`save_sharded_state`")
def save_sharded(llm: Any, place: Place) -> Any:
    folder = place.folder / "sharded"
    folder.mkdir(exist_ok=True)
    llm.llm_engine.engine_core.save_sharded_state(str(folder))
    return sorted((file.name, file.stat().st_size) for file in folder.iterdir())


@row("sleep", "sleep and wake at levels 1 and 2")
def sleeping(llm: Any, place: Place) -> Any:
    return [
        [
            outcome(lambda level=level: llm.sleep(level=level)),
            outcome(lambda: llm.llm_engine.is_sleeping()),
            outcome(lambda: llm.wake_up()),
            outcome(lambda: generate(llm, PROMPTS[:2])),
        ]
        for level in (0, 1, 2)
    ]


@row("metrics", "`get_metrics`")
def metrics(llm: Any, place: Place) -> Any:
    return outcome(lambda: sorted({each.name for each in llm.get_metrics()}))
