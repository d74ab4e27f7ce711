"""Tiny random checkpoints of every architecture, written by transformers as it writes any; knows no engine."""

from pathlib import Path
from typing import Any

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

ARCHITECTURES = ("llama", "llama3", "mistral", "qwen2", "qwen2-windows", "qwen3", "gemma3", "gemma3-long")


def random_model(architecture: str, seed: int = 0) -> PreTrainedModel:
    """A model of random weights, in float32; norms and biases are random too."""
    torch.manual_seed(seed)
    model: PreTrainedModel
    gemma: dict[str, Any] = {"head_dim": 16, "sliding_window": 16}
    match architecture:
        case "llama":
            model = LlamaForCausalLM(LlamaConfig(**SIZES))
        case "llama3":
            model = LlamaForCausalLM(LlamaConfig(**SIZES, rope_parameters=LLAMA3, head_dim=16))
        case "mistral":
            model = MistralForCausalLM(MistralConfig(**SIZES, sliding_window=16))
        case "qwen2":
            model = Qwen2ForCausalLM(Qwen2Config(**SIZES, tie_word_embeddings=True))
        case "qwen2-windows":
            windows: dict[str, Any] = {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 3}
            model = Qwen2ForCausalLM(Qwen2Config(**SIZES, **windows))
        case "qwen3":
            model = Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=16))
        case "gemma3":
            model = Gemma3ForCausalLM(Gemma3TextConfig(**SIZES, **gemma, query_pre_attn_scalar=24))
        case "gemma3-long":
            model = Gemma3ForCausalLM(Gemma3TextConfig(**SIZES, **gemma, rope_parameters=LINEAR))
        case _:
            raise ValueError(architecture)
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
