"""Tiny random checkpoints of every architecture, written by transformers as it writes any; knows no engine."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from tests.tiny_model import VOCAB_SIZE, write_byte_tokenizer

SIZES: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 7,  # one more than Gemma's period
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 257,
    "eos_token_id": 258,
    "pad_token_id": 256,
}
LLAMA3: dict[str, Any] = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LINEAR: dict[str, Any] = {
    "full_attention": {"rope_type": "linear", "rope_theta": 1_000_000.0, "factor": 8.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
}

GEMMA: dict[str, Any] = {"head_dim": 16, "sliding_window": 16}
WINDOWS: dict[str, Any] = {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 3}


@dataclass(frozen=True, slots=True)
class Architecture:
    """A model of transformers with the options of its config beside SIZES. `header` is what a GGUF file calls it; None
    where such a file cannot say those options."""

    model: Any
    config: Any
    header: str | None
    options: dict[str, Any] = field(default_factory=dict)


ARCHITECTURES: Final[Mapping[str, Architecture]] = MappingProxyType(
    {
        "llama": Architecture(LlamaForCausalLM, LlamaConfig, "llama"),
        "llama3": Architecture(LlamaForCausalLM, LlamaConfig, "llama", {"rope_parameters": LLAMA3, "head_dim": 16}),
        "mistral": Architecture(MistralForCausalLM, MistralConfig, "llama", {"sliding_window": 16}),
        "qwen2": Architecture(Qwen2ForCausalLM, Qwen2Config, "qwen2", {"tie_word_embeddings": True}),
        "qwen2-windows": Architecture(Qwen2ForCausalLM, Qwen2Config, None, WINDOWS),
        "qwen3": Architecture(Qwen3ForCausalLM, Qwen3Config, "qwen3", {"head_dim": 16}),
        "gemma3": Architecture(Gemma3ForCausalLM, Gemma3TextConfig, "gemma3", GEMMA | {"query_pre_attn_scalar": 24}),
        "gemma3-long": Architecture(Gemma3ForCausalLM, Gemma3TextConfig, "gemma3", GEMMA | {"rope_parameters": LINEAR}),
    }
)


def random_model(architecture: str, seed: int = 0) -> PreTrainedModel:
    """A model of random weights, in float32; norms and biases are random too."""
    torch.manual_seed(seed)
    written = ARCHITECTURES[architecture]
    model: PreTrainedModel = written.model(written.config(**SIZES, **copy.deepcopy(written.options)))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.normal_(std=0.1)
    return model


def write_checkpoint(model: PreTrainedModel, folder: Path, *, max_shard_size: str = "1GB") -> Path:
    """The model's folder, with the byte tokenizer in it."""
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    write_byte_tokenizer(folder)
    return folder
