"""Rows: engines that are set up in other ways."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from parity.feature import Place, engine, need_gpu, row
from parity.rows.a_generation import PROMPTS, generate, plain
from parity.rows.b_control import outcome


@engine("small")
def small(models: Path) -> dict[str, Any]:
    """With LoRA and a profiler, which don't disturb what is preempted."""
    import tempfile

    return plain(models) | {
        "enable_lora": True,
        "max_loras": 2,
        "max_cpu_loras": 2,
        "profiler_config": {
            "profiler": "torch",
            "torch_profiler_dir": tempfile.mkdtemp(prefix="traces-"),
        },
        "block_size": 32,
        "num_gpu_blocks_override": 24,
        "max_num_batched_tokens": 64,
        "max_num_seqs": 32,
        "enable_chunked_prefill": True,
    }


@row("preemption", "preemption with a small KV cache, chunked prefill", engine="small")
def preemption(llm: Any, place: Place) -> Any:
    prompts = [{"prompt_token_ids": [(7 * n + i) % 4000 + 9 for i in range(80)]} for n in range(20)]
    outputs = generate(llm, prompts, max_tokens=30)
    return [[each["completions"][0]["tokens"], each["cached"]] for each in outputs]


def adapter(place: Place, name: str = "adapter", number: int = 1, folder: str = "") -> Any:
    from vllm.lora.request import LoRARequest

    return LoRARequest(name, number, folder or str(place.models / "adapter"))


@row("lora", "LoRA: added, listed, pinned, used, removed", engine="small")
def lora(llm: Any, place: Place) -> Any:
    from vllm import SamplingParams

    engine = llm.llm_engine
    sampling = SamplingParams(max_tokens=16, ignore_eos=True, temperature=0)

    def tokens(**more: Any) -> Any:
        outputs = llm.generate(PROMPTS[:4], sampling, use_tqdm=False, **more)
        return [list(output.outputs[0].token_ids) for output in outputs]

    said = [engine.add_lora(adapter(place)), sorted(engine.list_loras()), engine.pin_lora(1)]
    said += [tokens(lora_request=adapter(place)), tokens()]
    said += [engine.remove_lora(1), sorted(engine.list_loras()), tokens()]
    return said


@row(
    "lora-bad",
    "LoRA: one that isn't there, then a right one",
    engine="small",
    right=["raises Exception", True, [1], True],
    last=True,
)
def bad_lora(llm: Any, place: Place) -> Any:
    engine = llm.llm_engine
    return [
        outcome(lambda: engine.add_lora(adapter(place, "missing", 2, "/nowhere/at/all"))),
        outcome(lambda: engine.add_lora(adapter(place))),
        outcome(lambda: sorted(engine.list_loras())),
        outcome(lambda: engine.remove_lora(1)),
    ]


@engine("ngram")
def ngram(models: Path) -> dict[str, Any]:
    return plain(models) | {
        "speculative_config": {
            "method": "ngram",
            "num_speculative_tokens": 3,
            "prompt_lookup_max": 2,
        }
    }


REPEATING = [{"prompt_token_ids": [20 + n, 30, 40, 50] * 6} for n in range(8)]


@row("ngram", "speculation by n-grams", engine="ngram")
def speculation(llm: Any, place: Place) -> Any:
    return [
        generate(llm, REPEATING, max_tokens=16),
        generate(llm, REPEATING, seed=5, temperature=0.8),
    ]


@engine("draft")
def draft(models: Path) -> dict[str, Any]:
    return plain(models) | {
        "speculative_config": {
            "method": "draft_model",
            "model": str(models / "draft"),
            "num_speculative_tokens": 2,
        }
    }


@row("draft", "speculation by a draft model", engine="draft")
def draft_model(llm: Any, place: Place) -> Any:
    return generate(llm, REPEATING, max_tokens=16)


@engine("moe")
def moe(models: Path) -> dict[str, Any]:
    return plain(models) | {"model": str(models / "moe")}


@row("moe", "a model of experts, each split over the ranks", engine="moe")
def experts(llm: Any, place: Place) -> Any:
    return generate(llm)


EXPERT_PARALLEL = (
    "expert parallelism: on the CPU vLLM calls its kernel (`cpu_fused_moe`) without the map that says "
    "which experts a rank has, reads beyond those that it has, and the rank dies by SIGSEGV; it"
)


@engine("experts")
def expert_parallel(models: Path) -> dict[str, Any]:
    need_gpu(EXPERT_PARALLEL)
    return moe(models) | {"enable_expert_parallel": True}


@row("moe-ep", "a model of experts, with expert parallelism", engine="experts")
def parallel_experts(llm: Any, place: Place) -> Any:
    return generate(llm)


@engine("pp")
def pp(models: Path) -> dict[str, Any]:
    return plain(models) | {
        "tensor_parallel_size": 1,
        "pipeline_parallel_size": 2,
        "enforce_eager": False,
        "compilation_config": {"backend": "eager"},
    }


@row("pp", "PP 2", engine="pp")
def pipeline(llm: Any, place: Place) -> Any:
    return [generate(llm), generate(llm, seed=3, temperature=0.9)]


@engine("pooling")
def pooling(models: Path) -> dict[str, Any]:
    return plain(models) | {"runner": "pooling", "convert": "embed"}


@row("embedding", "embedding and pooling", engine="pooling")
def embedding(llm: Any, place: Place) -> Any:
    return [
        [list(output.outputs.embedding) for output in llm.embed(PROMPTS[:8], use_tqdm=False)],
        # Sorted: vLLM makes the list from a set, so the order differs from run to run.
        sorted(llm.llm_engine.get_supported_tasks()),
    ]


@engine("classifier")
def classifier(models: Path) -> dict[str, Any]:
    return plain(models) | {"model": str(models / "classifier"), "runner": "pooling"}


@row("classify", "classification", engine="classifier")
def classify(llm: Any, place: Place) -> Any:
    return [list(output.outputs.probs) for output in llm.classify(PROMPTS[:8], use_tqdm=False)]


@engine("offloading")
def offloading(models: Path) -> dict[str, Any]:
    need_gpu("vLLM's offloading")
    return plain(models) | {
        "block_size": 32,
        "num_gpu_blocks_override": 32,
        "kv_transfer_config": {
            "kv_connector": "OffloadingConnector",
            "kv_role": "kv_both",
            "kv_connector_extra_config": {"cpu_bytes_to_use": 64 << 20, "block_size": 32},
        },
    }


def long_prompts_twice(llm: Any) -> Any:
    prompts = [
        {"prompt_token_ids": [(n * 31 + i) % 4000 + 9 for i in range(200)]} for n in range(6)
    ]
    return [
        [each["completions"][0]["tokens"] for each in generate(llm, prompts, max_tokens=8)]
        for _ in range(2)
    ]


@row("kv-offloading", "KV connector: offloading to the CPU", engine="offloading")
def offload(llm: Any, place: Place) -> Any:
    return long_prompts_twice(llm)


@engine("example-kv")
def example_kv(models: Path) -> dict[str, Any]:
    import tempfile

    return plain(models) | {
        "kv_transfer_config": {
            "kv_connector": "ExampleConnector",
            "kv_role": "kv_both",
            "kv_connector_extra_config": {"shared_storage_path": tempfile.mkdtemp(prefix="kv-")},
        },
    }


@row("kv-example", "KV connector: the example with files", engine="example-kv")
def example_connector(llm: Any, place: Place) -> Any:
    return long_prompts_twice(llm)


@row("profiler", "profiler: start, stop, a trace from every rank", engine="small")
def profile(llm: Any, place: Place) -> Any:
    import re

    folder = Path(llm.llm_engine.vllm_config.profiler_config.torch_profiler_dir)
    llm.start_profile()
    generate(llm, PROMPTS[:2], max_tokens=4)
    llm.stop_profile()
    found = [re.search(r"rank-?_?(\d+)", file.name) for file in folder.rglob("*") if file.is_file()]
    return sorted({each.group(1) for each in found if each})


@engine("compiled")
def compiled(models: Path) -> dict[str, Any]:
    import tempfile

    # A cache of its own: else the second backend finds what the first has compiled.
    cache = {"cache_dir": tempfile.mkdtemp(prefix="compiled-")}
    return plain(models) | {"enforce_eager": False, "compilation_config": cache}


@row("compiled", "a compiled model", engine="compiled")
def compiled_model(llm: Any, place: Place) -> Any:
    return generate(llm)
