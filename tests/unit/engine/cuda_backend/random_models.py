"""Models of real shapes with random weights, made on the device from a seed: ours, and what transformers needs to have
the same. Knows shapes and engines' parts, measures nothing."""

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import Tensor

from engine import Engine, EngineConfig
from engine.batch import PageLayout
from engine.cuda_backend.graphs import Launcher
from engine.cuda_backend.loading import build_runner
from engine.cuda_backend.weights import DecoderWeights, LayerWeights, Matrix
from engine.loaders import ModelDescription
from engine.loading import LoadedModel
from engine.models.shape import ModelShape, RotaryShape

PAGE_SIZE: Final = 16
_SPREAD: Final = 127 / math.sqrt(3)  # of whole numbers drawn evenly up to 127


def _shape(context: int, layers: int, theta: float, **sizes: Any) -> ModelShape:
    return ModelShape(
        context_length=context,
        num_layers=layers,
        rms_eps=1e-5,
        rotaries=(RotaryShape(theta),),
        layer_rotary=(0,) * layers,
        layer_windows=(None,) * layers,
        **sizes,
    )


@dataclass(frozen=True, slots=True)
class Subject:
    """A model to measure with. `tied`: the output layer is the embedding."""

    name: str
    shape: ModelShape
    tied: bool
    architecture: str


LLAMA_8B: Final = Subject(
    "Llama-3.1-8B",
    _shape(4096, 32, 500_000.0, vocab_size=128_256, hidden_size=4096, ffn_size=14_336, num_heads=32, num_kv_heads=8,
           head_dim=128),
    tied=False,
    architecture="llama",
)  # fmt: skip
QWEN_06B: Final = Subject(
    "Qwen3-0.6B",
    _shape(4096, 28, 1_000_000.0, vocab_size=151_936, hidden_size=1024, ffn_size=3072, num_heads=16, num_kv_heads=8,
           head_dim=128, qk_norm=True),
    tied=True,
    architecture="qwen3",
)  # fmt: skip
SMALL: Final = Subject(
    "small",
    _shape(2048, 3, 10_000.0, vocab_size=1000, hidden_size=320, ffn_size=700, num_heads=6, num_kv_heads=2, head_dim=64,
           qk_norm=True),
    tied=False,
    architecture="qwen3",
)  # fmt: skip
TINY: Final = Subject(
    "tiny",
    _shape(1024, 1, 10_000.0, vocab_size=97, hidden_size=32, ffn_size=64, num_heads=2, num_kv_heads=1, head_dim=32),
    tied=False,
    architecture="llama",
)  # fmt: skip
SUBJECTS: Final[Mapping[str, Subject]] = MappingProxyType(
    {subject.name: subject for subject in (QWEN_06B, LLAMA_8B, SMALL, TINY)}
)


class RandomWeights:
    """The same tensors for the same names, whoever asks: whole numbers times one scale for each output."""

    def __init__(self, subject: Subject, device: torch.device) -> None:
        self._subject, self._device = subject, device

    def whole(self, name: str, outputs: int, inputs: int) -> Matrix:
        """int8 [outputs, inputs] whose products of unit inputs have about unit size."""
        generator = self._generator(name)
        shape = (outputs, inputs)
        values = torch.randint(-127, 128, shape, generator=generator, device=self._device, dtype=torch.int8)
        gain = 1.0 if name == "embedding" else 1 / math.sqrt(inputs)
        scale = torch.rand(outputs, generator=generator, device=self._device).add_(0.5).mul_(gain / _SPREAD)
        return Matrix(values, scale)

    def bf16(self, name: str, outputs: int, inputs: int) -> Tensor:
        """The same numbers in bfloat16."""
        matrix = self.whole(name, outputs, inputs)
        assert matrix.scale is not None
        return matrix.values.to(torch.bfloat16).mul_(matrix.scale.to(torch.bfloat16)[:, None])

    def norm(self, name: str, width: int) -> Tensor:
        return torch.rand(width, generator=self._generator(name), device=self._device).add_(0.5)

    def decoder(self, numerics: str) -> DecoderWeights:
        """For the engine's own decoder under one policy."""
        shape = self._subject.shape

        def matrix(name: str, outputs: int, inputs: int) -> Matrix:
            if numerics == "bf16":
                return Matrix(self.bf16(name, outputs, inputs))
            return self.whole(name, outputs, inputs)

        embedding = matrix("embedding", shape.vocab_size, shape.hidden_size)
        return DecoderWeights(
            embedding=embedding,
            output=embedding if self._subject.tied else matrix("output", shape.vocab_size, shape.hidden_size),
            final_norm=self.norm("final_norm", shape.hidden_size),
            layers=tuple(self._layer(index, matrix) for index in range(shape.num_layers)),
        )

    def _layer(self, index: int, matrix: Any) -> LayerWeights:
        shape, name = self._subject.shape, f"{index}."
        return LayerWeights(
            attention_norm=self.norm(f"{name}attention_norm", shape.hidden_size),
            qkv=matrix(f"{name}qkv", shape.query_size + 2 * shape.kv_size, shape.hidden_size),
            qkv_bias=None,
            q_norm=self.norm(f"{name}q_norm", shape.head_dim) if shape.qk_norm else None,
            k_norm=self.norm(f"{name}k_norm", shape.head_dim) if shape.qk_norm else None,
            o=matrix(f"{name}o", shape.hidden_size, shape.query_size),
            attention_post_norm=None,
            mlp_norm=self.norm(f"{name}mlp_norm", shape.hidden_size),
            gate_up=matrix(f"{name}gate_up", 2 * shape.ffn_size, shape.hidden_size),
            down=matrix(f"{name}down", shape.hidden_size, shape.ffn_size),
            mlp_post_norm=None,
        )

    def _generator(self, name: str) -> torch.Generator:
        return torch.Generator(self._device).manual_seed(zlib.crc32(f"{self._subject.name}/{name}".encode()))


@dataclass(frozen=True, slots=True)
class Knobs:
    """Of one engine to measure."""

    max_num_seqs: int
    max_batched_tokens: int
    num_pages: int
    max_context: int
    warms: bool = True
    flags: Mapping[str, Any] = field(default_factory=dict)  # of EngineConfig


def model(
    subject: Subject, numerics: str, knobs: Knobs, device: torch.device, launcher: Launcher | None = None
) -> LoadedModel:
    """Random weights behind the engine's own runner, and every bucket warmed."""
    config = _config(knobs)
    with torch.inference_mode():
        weights = RandomWeights(subject, device).decoder(numerics)
    pages = PageLayout(knobs.num_pages + 1, PAGE_SIZE)
    runner = build_runner(config, weights, subject.shape, numerics, pages, knobs.max_context, device, launcher=launcher)
    if knobs.warms:
        runner.warm_up()
    description = ModelDescription(
        architecture=subject.architecture, name=subject.name, revision="random", shape=subject.shape, eos_ids=(),
        bos_id=None, add_bos=False, tokenizer_json="{}", chat_template=None, parameter_count=0, quantization="random",
        licence="", file_bytes=0,
    )  # fmt: skip
    return LoadedModel(runner, description, knobs.num_pages, knobs.max_context, f"random/{numerics}")


def engine(loaded: LoadedModel, knobs: Knobs) -> Engine:
    return Engine(_config(knobs), loaded=loaded)


def one_layer(subject: Subject) -> Subject:
    """The same kernels in little memory: none of them knows how many layers there are."""
    shape = replace(subject.shape, num_layers=1, layer_rotary=(0,), layer_windows=(None,))
    return replace(subject, shape=shape)


def smaller(knobs: Knobs, **changes: Any) -> Knobs:
    """Knobs of another engine over the same model, which asks for no more than it."""
    return replace(knobs, **changes)


def pages_for(tokens: int, shape: ModelShape, numerics: str, device: torch.device) -> int:
    """Pages for so many tokens, or for as many as four fifths of the free memory hold."""
    wanted = -(-tokens // PAGE_SIZE)
    if device.type != "cuda":
        return wanted
    each = shape.kv_bytes_per_token("exact", padded=False)
    if numerics == "bf16":
        each = 2 * shape.num_layers * 2 * shape.kv_size
    free, _ = torch.cuda.mem_get_info(device)
    return min(wanted, int(free * 0.8) // (each * PAGE_SIZE))


def _config(knobs: Knobs) -> EngineConfig:
    return EngineConfig(
        model="random",
        page_size=PAGE_SIZE,
        num_pages=knobs.num_pages,
        max_num_seqs=knobs.max_num_seqs,
        max_batched_tokens=knobs.max_batched_tokens,
        max_batched_keys=1 << 40,
        max_context=knobs.max_context,
        step_seconds=None,
        **knobs.flags,
    )
