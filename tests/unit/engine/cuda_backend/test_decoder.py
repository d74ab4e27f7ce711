"""Every option that a model may have, through the GPU's decoder with plain torch for each kernel, beside the portable
decoder with the same weights: near each other, since only their attentions round otherwise."""

import zlib
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from engine import EngineConfig, SamplingParams
from engine.batch import Batch, PageLayout, build_batch
from engine.cuda_backend.loading import build_runner
from engine.cuda_backend.weights import load_weights
from engine.loaders.checkpoint import Levels
from engine.models.shape import ModelShape, RotaryShape
from engine.request import Request
from engine.step_plan import ScheduledChunk
from engine.torch_backend.loading import load_torch_model

CONTEXT, PAGES = 64, PageLayout(9, 16)
CONFIG = EngineConfig(model="none", device="cpu", max_num_seqs=2, max_batched_tokens=64)
LLAMA = ModelShape(
    vocab_size=50, context_length=CONTEXT, hidden_size=96, ffn_size=160, num_layers=2, num_heads=4, num_kv_heads=2,
    head_dim=32, rms_eps=1e-5, rotaries=(RotaryShape(10_000.0),), layer_rotary=(0, 0), layer_windows=(None, None),
)  # fmt: skip
SHAPES = {
    "llama": LLAMA,
    "mistral": replace(LLAMA, layer_windows=(7, 7)),
    "qwen2": replace(LLAMA, qkv_bias=True),
    "qwen3": replace(LLAMA, qk_norm=True, num_kv_heads=1),
    "llama 3": replace(LLAMA, rotaries=(RotaryShape(500_000.0, tuple(1.0 + place for place in range(16))),)),
    "gemma 3": replace(
        LLAMA, qk_norm=True, post_norms=True, activation="gelu_tanh", embedding_scale=96**0.5, attention_scale=0.2,
        rotaries=(RotaryShape(10_000.0), RotaryShape(1e6, (8.0,) * 16)), layer_rotary=(0, 1), layer_windows=(5, None),
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Drawn:
    """A Checkpoint of random weights, the same for the same names. `outlier`: what one element of each key head has
    more of by its bias, as Qwen 2's have."""

    outlier: float = 0.0

    def has(self, role: str, layer: int | None = None) -> bool:
        return role == "output"

    def take(self, role: str, shape: tuple[int, ...], layer: int | None = None) -> NDArray[np.float32]:
        random = np.random.default_rng(zlib.crc32(f"{role}{layer}".encode()))
        drawn: NDArray[np.float32] = random.standard_normal(shape, dtype=np.float32)
        is_norm = role.endswith("norm")
        drawn *= 0.2 if is_norm else shape[-1] ** -0.5
        drawn += is_norm
        if role == "k_bias":
            drawn[:: LLAMA.head_dim] += self.outlier
        return drawn

    def has_levels(self, role: str, layer: int | None = None) -> bool:
        return False

    def levels(self, role: str, shape: tuple[int, ...], layer: int | None = None) -> Levels:
        raise AssertionError(f"{role} has no levels")


def step(*spans: tuple[int, int]) -> Batch:
    """Rows `start` to `end` of some requests."""
    chunks = []
    for number, (start, end) in enumerate(spans):
        ids = [(7 * place + number) % 50 for place in range(end)]
        pages = [1 + 4 * number + page for page in range(4)]
        asked = Request(str(number), SamplingParams(max_tokens=1), ids, end, 0.0, 0, frozenset(), pages=pages)
        chunks.append(ScheduledChunk(asked, start, end, samples=True))
    return build_batch(chunks, PAGES.size)


@pytest.mark.parametrize(("name", "outlier"), [*((name, 0.0) for name in SHAPES), ("qwen2", 30.0)])
def test_every_option_is_as_near_to_the_textbook_as_the_portable_decoder(name: str, outlier: float) -> None:
    shape, drawn, cpu = SHAPES[name], Drawn(outlier), torch.device("cpu")
    with torch.inference_mode():
        weights = load_weights(drawn, shape, cpu)
    ours = build_runner(CONFIG, weights, shape, "exact", PAGES, CONTEXT, cpu, kernels="cpu")
    portable, textbook = (
        load_torch_model(replace(CONFIG, backend="torch", numerics=numerics), drawn, shape, PAGES, CONTEXT)
        for numerics in ("exact", "reference")
    )
    for batch in (step((0, 20), (0, 9)), step((20, 22), (9, 10))):
        mine, theirs, wanted = (model.forward(batch) for model in (ours, portable, textbook))
        assert apart(mine, wanted) < 1.2 * apart(theirs, wanted) < 0.1
        assert apart(mine, theirs) < 0.04
        assert apart(ours.logits(theirs), portable.logits(theirs)) == 0.0


def apart(mine: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    return float(np.linalg.norm(mine - wanted) / np.linalg.norm(wanted))
