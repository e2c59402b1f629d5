"""The tiny random models that the rows need, made on the spot, each once."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tiny_model import VOCABULARY, make_tiny_llama, make_tokenizer


def make_all(folder: Path) -> None:
    """Those that aren't there."""
    for name in MODELS:
        make(folder, name)


def make(folder: Path, name: str) -> None:
    if not (folder / name).exists():
        MODELS[name](folder / name)


def make_lora(folder: Path) -> Path:
    from record_steps import make_adapter

    return make_adapter(folder.parent / "llama", folder)


def make_draft(folder: Path) -> Path:
    """Half of the layers, the same vocabulary."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return _save(folder, LlamaForCausalLM(LlamaConfig(**_SIZES | {"num_hidden_layers": 2})))


def make_moe(folder: Path) -> Path:
    """Four experts, two of them for each token."""
    from transformers import MixtralConfig, MixtralForCausalLM

    config = MixtralConfig(**_SIZES, num_local_experts=4, num_experts_per_tok=2)
    return _save(folder, MixtralForCausalLM(config))


def make_classifier(folder: Path) -> Path:
    from transformers import LlamaConfig, LlamaForSequenceClassification

    config = LlamaConfig(**_SIZES, num_labels=3, pad_token_id=0)
    return _save(folder, LlamaForSequenceClassification(config))


def _save(folder: Path, model: object) -> Path:
    import torch

    model.to(torch.bfloat16).save_pretrained(folder)  # type: ignore[attr-defined]
    make_tokenizer().save_pretrained(folder)
    return folder


_SIZES = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 2048,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "tie_word_embeddings": False,
}

MODELS: dict[str, Callable[[Path], Path]] = {
    "llama": make_tiny_llama,
    "adapter": make_lora,
    "draft": make_draft,
    "moe": make_moe,
    "classifier": make_classifier,
}
"""By the name of the folder."""
