"""The numerics policies, by name, and the proof that a machine computes int8 products exactly; knows no model.

"exact"      int8 operands, whole-number sums: any schedule gives the same tokens
"reference"  float32 weights and sums, as a textbook writes them: the plain twin, for parity and for measuring quality
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

import torch
from torch import Tensor

from engine.batch import PageLayout
from engine.errors import EngineConfigError
from engine.models.shape import ModelShape
from engine.torch_backend.layers.attention import ExactAttention, PlainAttention
from engine.torch_backend.layers.embedding import ExactEmbedding, PlainEmbedding
from engine.torch_backend.layers.linear import ExactLinear, PlainLinear, Weight, float_chunk_road, int8_road
from engine.torch_backend.layers.protocols import Attention, Embedding, Linear, Norm
from kernels import ops

# Counts around the cuts that kernels make: one row, fewer than a tile, more than one.
_PROOF_ROWS: Final = (1, 2, 7, 17, 33, 64)
_PROOF_OUTPUTS: Final = 48

WeightMaker: TypeAlias = Callable[[Tensor], Weight]


@dataclass(frozen=True, slots=True)
class Numerics:
    """How one policy builds the parts of a model on one device. `road` names the product, for the digest."""

    name: str
    road: str
    weight: WeightMaker  # float32 [out, in] -> what a linear layer keeps
    linear: Callable[[Weight], Linear]
    embedding: Callable[[Weight], Embedding]
    norm: Norm
    gated_activation: Callable[[Tensor], Tensor]
    attention: Callable[[ModelShape, PageLayout, torch.device], Attention]


def choose_numerics(name: str, device: torch.device, widths: Iterable[int]) -> Numerics:
    """The policy `name` on `device` for products over `widths` inputs. Raises EngineConfigError for an unknown name."""
    if name == "exact":
        return _exact(device, widths)
    if name == "reference":
        return _reference(device)
    raise EngineConfigError(f"unknown numerics {name!r}; known are 'exact' and 'reference'")


def _exact(device: torch.device, widths: Iterable[int]) -> Numerics:
    integers_are_exact = is_exact(ops.int8_matmul, torch.int8, device, widths)
    return Numerics(
        name="exact",
        road="int8_matmul" if integers_are_exact else "float_chunk_matmul",
        weight=int8_road(device) if integers_are_exact else float_chunk_road(device),
        linear=ExactLinear,
        embedding=ExactEmbedding,
        norm=ops.rms_norm,
        gated_activation=ops.silu_mul,
        attention=ExactAttention,
    )


def _reference(device: torch.device) -> Numerics:
    def weight(values: Tensor) -> Weight:
        return Weight(values.to(device), None, None)

    return Numerics(
        name="reference",
        road="float32",
        weight=weight,
        linear=PlainLinear,
        embedding=PlainEmbedding,
        norm=ops.float_rms_norm,
        gated_activation=ops.float_silu_mul,
        attention=PlainAttention,
    )


def is_exact(
    product: Callable[[Tensor, Tensor], Tensor], weight_dtype: torch.dtype, device: torch.device, widths: Iterable[int]
) -> bool:
    """Whether a product of int8 operands over each of `widths` inputs equals int64 arithmetic where saturation would
    show: all at +-127.

    oneDNN without VNNI adds pairs of products in 16 bits and clips them; rows still agree with each other, so only a
    comparison with wider integers finds it. The widths are the model's own, since a width can be wrong by itself:
    torch 2.13 misreads a weight of one input.
    """
    generator = torch.Generator().manual_seed(0)
    try:
        for width in sorted(set(widths)):
            weight = _extremes(_PROOF_OUTPUTS, width, generator)
            for rows in _PROOF_ROWS:
                x = _extremes(rows, width, generator)
                got = product(x.to(device), weight.to(device, weight_dtype)).cpu()
                if not torch.equal(got.long(), x.long() @ weight.long().t()):
                    return False
    except RuntimeError:  # this build of torch has no such product for this device: the portable road is taken
        return False
    return True


def _extremes(rows: int, width: int, generator: torch.Generator) -> Tensor:
    """int8 [rows, width] of +-127; the first row is all +127, the largest sum there is."""
    signs = torch.randint(0, 2, (rows, width), generator=generator, dtype=torch.int8)
    signs[0] = 1
    return signs * 254 - 127
