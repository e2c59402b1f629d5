"""Rows: other kinds of models: with a drafter, for pooling, for images."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from parity.feature import ENGINES, Place, engine, need_gpu, row
from parity.rows.a_generation import PROMPTS, generate, plain
from parity.rows.b_control import outcome
from parity.rows.c_engines import REPEATING


@engine("eagle")
def eagle(models: Path) -> dict[str, Any]:
    return plain(models) | {
        "speculative_config": {
            "method": "eagle",
            "model": str(models / "eagle"),
            "num_speculative_tokens": 2,
        }
    }


@row("eagle", "speculation by EAGLE", engine="eagle")
def eagle_speculation(llm: Any, place: Place) -> Any:
    return generate(llm, REPEATING, max_tokens=16)


@row("score", "scores of pairs of texts", engine="pooling")
def score(llm: Any, place: Place) -> Any:
    outputs = llm.score("w1 w2 w3", ["w1 w2", "w8 w9 w10", "yes"], use_tqdm=False)
    return [output.outputs.score for output in outputs]


@engine("reward")
def reward_engine(models: Path) -> dict[str, Any]:
    return plain(models) | {"model": str(models / "reward"), "runner": "pooling"}


@row("reward", "a reward model: a number for each token", engine="reward")
def reward(llm: Any, place: Place) -> Any:
    outputs = llm.encode(PROMPTS[:6], pooling_task="token_classify", use_tqdm=False)
    return [output.outputs.data.tolist() for output in outputs]


def blip(models: Path, **changed: Any) -> dict[str, Any]:
    return plain(models) | {"model": str(models / "blip")} | changed


ENGINES |= {
    "images": blip,
    "images-shm": lambda models: blip(models, mm_processor_cache_type="shm"),
    "images-uncached": lambda models: blip(models, mm_processor_cache_gb=0),
}


def described(llm: Any) -> Any:
    """Pictures, one of them three times; then again, with what caches have."""
    prompts = [
        {
            "prompt_token_ids": [20 + number, 30 + number],
            "multi_modal_data": {"image": _picture(picture)},
        }
        for number, picture in enumerate((0, 1, 2, 0, 3, 4, 0, 5))
    ]
    said = [generate(llm, prompts), generate(llm, prompts[::-1])]
    said.append(outcome(lambda: llm.llm_engine.reset_mm_cache()))
    llm.reset_prefix_cache()
    said.append(outcome(lambda: llm.llm_engine.reset_encoder_cache()))
    return [*said, generate(llm, prompts)]


def _picture(number: int) -> Any:
    import numpy
    from PIL import Image

    pixels = numpy.random.default_rng(number).integers(0, 255, (28, 28, 3), dtype=numpy.uint8)
    return Image.fromarray(pixels)


@row("images", "images, with the processor's cache in each process", engine="images")
def images(llm: Any, place: Place) -> Any:
    return described(llm)


@row("images-shm", "images, with the processor's cache in shared memory", engine="images-shm")
def images_shm(llm: Any, place: Place) -> Any:
    return described(llm)


@row("images-uncached", "images, without the processor's cache", engine="images-uncached")
def images_uncached(llm: Any, place: Place) -> Any:
    return described(llm)


def with_encoder_cache(models: Path, connector: str, **extra: Any) -> dict[str, Any]:
    config = {
        "ec_connector": connector,
        "ec_role": "ec_both",
        "ec_connector_extra_config": extra,
    }
    return blip(models, ec_transfer_config=config)


@engine("ec-example")
def ec_example(models: Path) -> dict[str, Any]:
    folder = tempfile.mkdtemp(prefix="ec-")
    return with_encoder_cache(models, "ECExampleConnector", shared_storage_path=folder)


@engine("ec-cpu")
def ec_cpu(models: Path) -> dict[str, Any]:
    need_gpu("ECCPUConnector: it wants vLLM's V2 model runner, which")
    return with_encoder_cache(models, "ECCPUConnector", ec_cpu_bytes=16 << 20)


@row("ec-example", "encoder cache connector: the example with files", engine="ec-example")
def example_encoder_cache(llm: Any, place: Place) -> Any:
    return described(llm)


@row("ec-cpu", "encoder cache connector: the CPU's memory", engine="ec-cpu")
def cpu_encoder_cache(llm: Any, place: Place) -> Any:
    return described(llm)


@engine("whisper")
def whisper(models: Path) -> dict[str, Any]:
    return plain(models) | {
        "model": str(models / "whisper"),
        "max_model_len": 96,
        "max_num_seqs": 8,
        "limit_mm_per_prompt": {"audio": 1},
    }


@row("encoder-decoder", "encoder and decoder: Whisper", engine="whisper")
def encoder_decoder(llm: Any, place: Place) -> Any:
    import numpy

    def heard(number: int) -> Any:
        sound = numpy.random.default_rng(number).standard_normal(16_000).astype(numpy.float32)
        return {
            "prompt_token_ids": [0, 20 + number],
            "multi_modal_data": {"audio": (sound, 16_000)},
        }

    return generate(llm, [heard(number) for number in (0, 1, 2, 0)])
