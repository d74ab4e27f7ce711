"""A decoder layer made of the operations, in the order a runner launches them: Triton beside the references."""

import math
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor

from kernels.dispatch import GPU, REFERENCE
from kernels.reference.quantize import quantize_rows

HIDDEN, FFN, HEADS, KV_HEADS, DIM, GROUP, PAGE, EPS = 96, 160, 3, 1, 32, 64, 16, 1e-5
TOKENS = 5

Run = Callable[..., Any]


def triton(operation: str) -> Run:
    module, _, name = GPU[operation].partition(":")
    found: Run = getattr(import_module(module), name)
    return found


class Layer:
    """One layer's weights, pages and buffers. All buffers are there before the first launch."""

    def __init__(self, kernel: Callable[[str], Run]) -> None:
        self.kernel = kernel
        generator = torch.Generator().manual_seed(0)
        self.draw = partial(torch.randn, generator=generator)
        self.qkv, self.output = self._linear((HEADS + 2 * KV_HEADS) * DIM, HIDDEN), self._linear(HIDDEN, HEADS * DIM)
        self.gate_up, self.down = self._linear(2 * FFN, HIDDEN), self._linear(HIDDEN, FFN)
        self.norms = self.draw(2, HIDDEN).abs()
        angles = torch.rand(64, DIM // 2, generator=generator) * 6
        self.cos, self.sin = angles.cos(), angles.sin()
        self.pages = torch.zeros(4, 2, KV_HEADS, PAGE, DIM, dtype=torch.int8)
        self.scales = torch.zeros(4, 2, KV_HEADS, PAGE)

    def _linear(self, outputs: int, inputs: int) -> tuple[Tensor, Tensor]:
        whole, scale = quantize_rows(self.draw(outputs, inputs) / math.sqrt(inputs))
        return whole, scale.squeeze(1)

    def project(self, whole: Tensor, scale: Tensor, linear: tuple[Tensor, Tensor], out: Tensor, **adds: Tensor) -> None:
        self.kernel("scaled_int8_matmul")(whole, scale, *linear, GROUP, out, **adds)

    def forward(self, stream: Tensor, start: int) -> None:
        """stream float32 [rows, hidden], in place: rows of one sequence from position `start` on."""
        rows, wide, inner = len(stream), HEADS * DIM, math.ceil(FFN / GROUP)
        whole, scale = torch.empty(rows, HIDDEN, dtype=torch.int8), torch.empty(rows, math.ceil(HIDDEN / GROUP))
        positions = torch.arange(start, start + rows)
        self.kernel("add_rms_norm_quantize")(stream, None, self.norms[0], EPS, GROUP, whole, scale)
        qkv, query, seen = (torch.empty(rows, heads, DIM) for heads in (HEADS + 2 * KV_HEADS, HEADS, HEADS))
        self.project(whole, scale, self.qkv, qkv.view(rows, -1))
        self.kernel("qk_norm_rope_write_kv")(
            qkv, positions, self.cos, self.sin, None, None, EPS, self.pages, self.scales, positions + PAGE, query
        )
        starts, lengths = torch.tensor([0, rows], dtype=torch.int32), torch.tensor([start + rows], dtype=torch.int32)
        tables = torch.tensor([[1]], dtype=torch.int32)  # so slots are positions, one page on
        self.kernel("paged_attention")(
            query, self.pages, self.scales, starts, lengths, tables, DIM**-0.5, 0, seen, torch.empty(0)
        )
        heads_whole, heads_scale = torch.empty(rows, wide, dtype=torch.int8), torch.empty(rows, math.ceil(wide / GROUP))
        self.kernel("quantize_by_group")(seen.view(rows, -1), GROUP, heads_whole, heads_scale)
        self.project(heads_whole, heads_scale, self.output, stream, residual=stream)
        self.kernel("add_rms_norm_quantize")(stream, None, self.norms[1], EPS, GROUP, whole, scale)
        gate_up, middle = torch.empty(rows, 2 * FFN), torch.empty(rows, FFN, dtype=torch.int8)
        middle_scale = torch.empty(rows, inner)
        self.project(whole, scale, self.gate_up, gate_up)
        self.kernel("gated_quantize")(gate_up, "silu", GROUP, middle, middle_scale)
        self.project(middle, middle_scale, self.down, stream, residual=stream)


def embedded() -> Tensor:
    return torch.randn(TOKENS, HIDDEN, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("cut", [TOKENS, 2])
def test_a_layer_has_the_bits_of_the_references_however_its_prefill_is_cut(cut: int) -> None:
    wanted = embedded()
    Layer(REFERENCE.__getitem__).forward(wanted, 0)
    layer, got = Layer(triton), embedded()
    for start in range(0, TOKENS, cut):
        layer.forward(got[start : start + cut], start)
    assert torch.equal(got, wanted)
