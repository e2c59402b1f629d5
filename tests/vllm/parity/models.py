"""The tiny random models that the rows need, made on the spot, each once."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tiny_model import VOCABULARY, make_tiny_llama, make_tokenizer


def make_all(folder: Path) -> None:
    """Those that aren't there."""
    for name in MODELS:
        make(folder, name)


def make(folder: Path, name: str) -> None:
    """If it isn't there; the same weights each time."""
    import torch

    if not (folder / name).exists():
        torch.manual_seed(0)
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


def make_eagle(folder: Path) -> Path:
    """One layer, and what joins a token's embedding with the state of the model that is sped up."""
    import torch
    from transformers import LlamaConfig, LlamaModel

    config = LlamaConfig(**_SIZES | {"num_hidden_layers": 1}, architectures=["LlamaForCausalLM"])
    weights = LlamaModel(config).state_dict()
    del weights["layers.0.input_layernorm.weight"], weights["norm.weight"]
    weights["fc.weight"] = torch.randn(config.hidden_size, 2 * config.hidden_size) / 16
    return _save_weights(folder, config, weights)


def make_reward(folder: Path) -> Path:
    """A number for each token."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(**_SIZES, num_labels=1, architectures=["Qwen2ForRewardModel"])
    weights = Qwen2ForCausalLM(config).state_dict()
    del weights["lm_head.weight"]
    for name, size in (("score.0", config.hidden_size), ("score.2", config.num_labels)):
        weights[f"{name}.weight"] = torch.randn(size, config.hidden_size) / 16
        weights[f"{name}.bias"] = torch.randn(size) / 16
    return _save_weights(folder, config, weights)


def make_blip(folder: Path) -> Path:
    """Images of 28 by 28 pixels, four tokens each before the prompt. Others need torchvision."""
    from transformers import (
        Blip2Config,
        Blip2ForConditionalGeneration,
        Blip2Processor,
        BlipImageProcessor,
        OPTConfig,
    )

    encoder = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    text = OPTConfig(
        vocab_size=VOCABULARY + 64,
        hidden_size=256,
        word_embed_proj_dim=256,
        ffn_dim=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    config = Blip2Config(
        vision_config=encoder | {"image_size": 28, "patch_size": 14},
        qformer_config=encoder | {"encoder_hidden_size": 64},
        text_config=text.to_dict(),
        num_query_tokens=4,
        image_token_index=VOCABULARY,
    )
    _save(folder, Blip2ForConditionalGeneration(config))
    pictures = BlipImageProcessor(size={"height": 28, "width": 28})
    Blip2Processor(pictures, make_tokenizer(), num_query_tokens=4).save_pretrained(folder)
    return folder


def make_whisper(folder: Path) -> Path:
    """Two seconds of sound."""
    from transformers import (
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperProcessor,
    )

    config = WhisperConfig(
        vocab_size=VOCABULARY,
        d_model=128,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=256,
        decoder_ffn_dim=256,
        max_source_positions=100,
        max_target_positions=96,
        decoder_start_token_id=0,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    _save(folder, WhisperForConditionalGeneration(config))
    WhisperProcessor(WhisperFeatureExtractor(chunk_length=2), make_tokenizer()).save_pretrained(
        folder
    )
    return folder


def _save_weights(folder: Path, config: Any, weights: dict[str, Any]) -> Path:
    import torch
    from safetensors.torch import save_file

    config.save_pretrained(folder)
    save_file(
        {name: each.to(torch.bfloat16).contiguous() for name, each in weights.items()},
        folder / "model.safetensors",
    )
    make_tokenizer().save_pretrained(folder)
    return folder


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
    "eagle": make_eagle,
    "reward": make_reward,
    "blip": make_blip,
    "whisper": make_whisper,
}
"""By the name of the folder."""
