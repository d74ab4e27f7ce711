"""Models of any shape with random weights, on the fused or the portable backend, and steps for them; knows no file."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine import EngineConfig, SamplingParams
from engine.batch import Batch, PageLayout, build_batch
from engine.cpu_backend.loading import load_cpu_model, unsupported
from engine.loaders.checkpoint import Levels
from engine.models.causal_lm import CausalLM
from engine.models.shape import ModelShape, RotaryShape
from engine.request import Request
from engine.step_plan import ScheduledChunk
from engine.torch_backend.loading import load_torch_model

VOCAB, CONTEXT = 70, 192
LINEAR = ("q", "k", "v", "o", "gate", "up", "down")
NEVER_ASKED = 66
"""A token of no request."""
CONFIG = EngineConfig("none", device="cpu", threads=1)

LLAMA = ModelShape(
    vocab_size=VOCAB, context_length=CONTEXT, hidden_size=72, ffn_size=100, num_layers=2, num_heads=4, num_kv_heads=2,
    head_dim=18, rms_eps=1e-5, rotaries=(RotaryShape(10_000.0),), layer_rotary=(0, 0), layer_windows=(None, None),
)  # fmt: skip
GEMMA = replace(
    LLAMA, qk_norm=True, post_norms=True, activation="gelu_tanh", embedding_scale=72**0.5, attention_scale=0.2,
    rotaries=(RotaryShape(10_000.0), RotaryShape(1e6, (8.0,) * 9)), layer_rotary=(0, 1), layer_windows=(21, None),
)  # fmt: skip
SHAPES = {
    "head of 18": LLAMA,
    "head of 64": replace(LLAMA, head_dim=64, hidden_size=128, ffn_size=192, vocab_size=128),
    "head of 80": replace(LLAMA, head_dim=80, hidden_size=136),
    "head of 96": replace(LLAMA, head_dim=96, num_kv_heads=4, ffn_size=300),
    "head of 128": replace(LLAMA, head_dim=128, num_kv_heads=1, vocab_size=129),
    "head of 256": replace(LLAMA, head_dim=256, num_heads=2, num_kv_heads=1, ffn_size=20),
    "nine heads of three": replace(LLAMA, num_heads=9, num_kv_heads=3, hidden_size=200),
    "all of Gemma": GEMMA,
    "all of Gemma, head of 256": replace(
        GEMMA, head_dim=256, num_kv_heads=1, rotaries=(RotaryShape(10_000.0), RotaryShape(1e6, (8.0,) * 128))
    ),
    "biases, head of 80": replace(LLAMA, qkv_bias=True, head_dim=80, layer_windows=(None, 17)),
    "every option": replace(GEMMA, qkv_bias=True, layer_windows=(1, 33)),
}


@dataclass(frozen=True, slots=True)
class Drawn:
    """A Checkpoint of random weights, the same for the same names; linear ones on 16 levels a run where `four_bits`."""

    tied: bool = False
    four_bits: bool = False

    def has(self, role: str, layer: int | None = None) -> bool:
        return role != "output" or not self.tied

    def take(self, role: str, shape: tuple[int, ...], layer: int | None = None) -> NDArray[np.float32]:
        random = _random(role, layer)
        if self.has_levels(role, layer):
            levels = self.levels(role, shape, layer)
            step, lowest = np.repeat(levels.step, 32, axis=1), np.repeat(levels.lowest, 32, axis=1)
            numbers = random.integers(0, 16, shape).astype(np.float32)
            values: NDArray[np.float32] = lowest + numbers * step
            return values
        drawn: NDArray[np.float32] = random.standard_normal(shape, dtype=np.float32)
        is_norm = role.endswith("norm")
        drawn *= 0.2 if is_norm or role.endswith("bias") else 1.5 * shape[-1] ** -0.5
        drawn += is_norm
        return drawn

    def has_levels(self, role: str, layer: int | None = None) -> bool:
        return self.four_bits and role in LINEAR

    def levels(self, role: str, shape: tuple[int, ...], layer: int | None = None) -> Levels:
        """Steps of either sign, and lowest levels of any distance from zero."""
        random = _random("levels", role, layer)
        runs = shape[0], shape[1] // 32
        step = random.standard_normal(runs, dtype=np.float32) * np.float32(0.3 * shape[1] ** -0.5)
        return Levels(step, step * random.uniform(-12, -3, runs).astype(np.float32))


OWN_OUTPUT: Final = Drawn()
WEIGHTS: Final = {"own output": OWN_OUTPUT, "tied": Drawn(tied=True), "in four bits": Drawn(four_bits=True)}


def _random(*names: object) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(repr(names).encode()))


def why_not(shape: ModelShape = LLAMA) -> str | None:
    """Why the fused backend does not run here."""
    return unsupported(CONFIG, shape)


def fused(
    shape: ModelShape,
    pages: PageLayout,
    *,
    threads: int = 1,
    weights: Drawn = OWN_OUTPUT,
    context: int = CONTEXT,
) -> CausalLM:
    return load_cpu_model(replace(CONFIG, threads=threads), weights, shape, "drawn", pages, context)


def portable(
    shape: ModelShape, pages: PageLayout, numerics: str, *, weights: Drawn = OWN_OUTPUT, context: int = CONTEXT
) -> CausalLM:
    return load_torch_model(replace(CONFIG, numerics=numerics), weights, shape, pages, context)


def asked(number: int, length: int, pages: Sequence[int]) -> Request:
    """A request of a text of its own, which owns its pages already."""
    drawn = np.random.default_rng(number).integers(0, VOCAB - 1, length)
    ids = [int(token) + (token >= NEVER_ASKED) for token in drawn]
    return Request(str(number), SamplingParams(max_tokens=1), ids, length, 0.0, number, frozenset(), pages=list(pages))


def step(chunks: Sequence[tuple[Request, int, int]], page_size: int) -> Batch:
    """Rows `start` to `end` of some requests."""
    return build_batch([ScheduledChunk(*chunk, samples=True) for chunk in chunks], page_size)


def rows_of(model: CausalLM, request: Request, cuts: Sequence[int], page_size: int) -> NDArray[np.float32]:
    """The hidden row of every token, in chunks of the lengths in `cuts`, over and over.  # [tokens, hidden]"""
    hidden, start, turn = [], 0, 0
    while start < len(request.ids):
        end = min(start + cuts[turn % len(cuts)], len(request.ids))
        hidden.append(model.forward(step([(request, start, end)], page_size)).copy())
        start, turn = end, turn + 1
    return np.concatenate(hidden)
