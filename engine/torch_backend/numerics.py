"""The numerics policies, by name: how each builds the parts of a model on one device; knows no model.

"exact"      int8 operands, whole-number sums: any schedule gives the same tokens
"reference"  float32 weights and sums, as a textbook writes them: the plain twin, for parity and for measuring quality
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from engine.batch import PageLayout
from engine.models.shape import ModelShape
from engine.torch_backend.layers.attention import ExactAttention, PlainAttention
from engine.torch_backend.layers.embedding import ExactEmbedding, PlainEmbedding
from engine.torch_backend.layers.linear import ExactLinear, PlainLinear, PlainWeight, float_road, int8_road
from engine.torch_backend.layers.norm import NormOperation
from engine.torch_backend.layers.protocols import Attention, Embedding, Linear
from engine.torch_backend.proof import is_exact
from kernels import ops

GatedActivation: TypeAlias = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Numerics:
    """One policy on one device. `road` names the product, for the digest."""

    name: str
    road: str
    linear: Callable[[Tensor, Tensor | None], Linear]  # weight float32 [out, in], bias [out]
    table: Callable[[Tensor], tuple[Embedding, Linear]]  # float32 [vocab, hidden]: the embedding, the output tied to it
    norm: NormOperation
    activations: Mapping[str, GatedActivation]  # by ModelShape.activation
    attention: Callable[[ModelShape, int | None, PageLayout, torch.device], Attention]


def choose_numerics(name: str, device: torch.device, widths: Iterable[int]) -> Numerics:
    """The policy `name`, one of engine.config.NUMERICS, on `device` for products over `widths` inputs."""
    return _exact(device, widths) if name == "exact" else _reference(device)


def _exact(device: torch.device, widths: Iterable[int]) -> Numerics:
    integers_are_exact = is_exact(ops.int8_group_matmul, torch.int8, device, widths)
    weight = int8_road(device) if integers_are_exact else float_road(device)

    def table(values: Tensor) -> tuple[Embedding, Linear]:
        shared = weight(values)
        return ExactEmbedding(shared), ExactLinear(shared)

    return Numerics(
        name="exact",
        road="int8_group_matmul" if integers_are_exact else "float_group_matmul",
        linear=lambda values, bias: ExactLinear(weight(values), bias),
        table=table,
        norm=ops.rms_norm,
        activations={"silu": ops.silu_mul, "gelu_tanh": ops.gelu_mul},
        attention=ExactAttention,
    )


def _reference(device: torch.device) -> Numerics:
    def table(values: Tensor) -> tuple[Embedding, Linear]:
        shared = PlainWeight(values.to(device))
        return PlainEmbedding(shared), PlainLinear(shared)

    return Numerics(
        name="reference",
        road="float32",
        linear=lambda values, bias: PlainLinear(PlainWeight(values.to(device)), bias),
        table=table,
        norm=ops.float_rms_norm,
        activations={"silu": ops.float_silu_mul, "gelu_tanh": ops.float_gelu_mul},
        attention=PlainAttention,
    )
