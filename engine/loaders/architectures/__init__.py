"""Which architectures are read, from a GGUF header and from a Hugging Face config: a name, a function, a layout."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from engine.loaders.architectures import config, gemma3, header, llama, mistral, qwen2, qwen3
from engine.loaders.architectures.header import Header
from engine.loaders.metadata import Metadata
from engine.loaders.weights import WeightLayout
from engine.models.shape import ModelShape

__all__ = ["IN_CONFIG", "IN_HEADER", "FromConfig", "FromHeader", "Header"]


@dataclass(frozen=True, slots=True)
class FromConfig:
    """An architecture of Hugging Face folders; `name` is what this engine calls it, `tied` whether the output layer is
    the embedding where a config does not say."""

    name: str
    shape: Callable[[Metadata], ModelShape]
    layout: WeightLayout
    tied: bool = False


@dataclass(frozen=True, slots=True)
class FromHeader:
    """An architecture of GGUF files."""

    shape: Callable[[Header], ModelShape]
    layout: WeightLayout


_COMMON: Final = WeightLayout(config.TENSOR_NAMES)

IN_CONFIG: Final = {
    "LlamaForCausalLM": FromConfig("llama", llama.from_config, _COMMON),
    "MistralForCausalLM": FromConfig("mistral", mistral.from_config, _COMMON),
    "Qwen2ForCausalLM": FromConfig("qwen2", qwen2.from_config, WeightLayout(qwen2.TENSOR_NAMES)),
    "Qwen3ForCausalLM": FromConfig("qwen3", qwen3.from_config, WeightLayout(qwen3.TENSOR_NAMES)),
    "Gemma3ForCausalLM": FromConfig(
        "gemma3", gemma3.from_config, WeightLayout(gemma3.TENSOR_NAMES, norm_offset=1.0), tied=True
    ),
}

# Converters interleave query and key rows of what they call llama, and of nothing else here.
IN_HEADER: Final = {
    "llama": FromHeader(llama.from_header, WeightLayout(header.TENSOR_NAMES, interleaved=True)),
    "qwen2": FromHeader(qwen2.from_header, WeightLayout(header.TENSOR_NAMES)),
    "qwen3": FromHeader(qwen3.from_header, WeightLayout(header.TENSOR_NAMES)),
    "gemma3": FromHeader(gemma3.from_header, WeightLayout(header.TENSOR_NAMES)),
}
