"""Launches the kernels of a decoder in their order, over buffers that never move; knows no requests and no sampling.

    stream = embed(token) * embedding_scale                                            float32 [rows, hidden]
    each layer:  stream += post_norm(o(attention(rotate(qkv(norm(stream))))))
                 stream += post_norm(down(activation(gate_up(norm(stream)))))
    logits = output(norm(stream of the rows that sample))

Nothing here waits for the device, allocates or looks at a value, so a graph can be made of it. Which architecture has
which part: engine/torch_backend/decoder.py, the plain twin.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from engine.batch import PageLayout
from engine.cuda_backend.numerics import Numerics
from engine.cuda_backend.operations import Operations
from engine.cuda_backend.rotary import angle_table
from engine.cuda_backend.weights import DecoderWeights, LayerWeights
from engine.models.shape import ModelShape
from kernels.ops import attention_workspace

MOST_WORKSPACE: Final = 1 << 26
"""256 MiB of partial results: a longer context in a wider batch is attended to by fewer programs, to the same bits."""


@dataclass(frozen=True, slots=True)
class StepInputs:
    """What a step reads. Padded rows have slot -1 and stand behind row_starts[-1]."""

    token_ids: Tensor  # int64 [rows]
    positions: Tensor  # int64 [rows]
    slots: Tensor  # int64 [rows]
    row_starts: Tensor  # int32 [sequences + 1]
    context_lens: Tensor  # int32 [sequences]
    tables: Tensor  # int32 [sequences, pages]


class Decoder:
    """One model with its pages, for steps of up to `rows` rows."""

    def __init__(
        self,
        weights: DecoderWeights,
        shape: ModelShape,
        numerics: Numerics,
        operations: Operations,
        pages: PageLayout,
        context: int,
        rows: int,
        device: torch.device,
    ) -> None:
        self.shape, self.numerics = shape, numerics
        self._weights, self._operations = weights, operations
        self._angles = [angle_table(rotary, shape.head_dim, context, device) for rotary in shape.rotaries]
        self._pages = [_Pages(shape, pages, numerics.pages, device) for _ in range(shape.num_layers)]
        self._buffers = _Buffers(shape, numerics.activations, rows, context, device)

    def forward(self, inputs: StepInputs) -> Tensor:
        """The stream behind the last layer, a view of the buffer that the next step writes.  # [rows, hidden]"""
        rows = len(inputs.token_ids)
        stream = self.stream(rows)
        embedding = self._weights.embedding
        self._operations.embed(inputs.token_ids, embedding.values, embedding.scale, self.shape.embedding_scale, stream)
        for index, layer in enumerate(self._weights.layers):
            self._attend(index, layer, stream, inputs)
            self._gate(layer, stream)
        return stream

    def stream(self, rows: int) -> Tensor:
        """What the last step left there, for so many rows.  # [rows, hidden]"""
        return self._buffers.stream[:rows]

    def head(self, hidden: Tensor, logits: Tensor) -> None:
        """hidden [rows, hidden] -> logits float32 [rows, vocab]."""
        normed = self.numerics.normed(hidden, self._weights.final_norm, self.shape.rms_eps)
        self.numerics.multiply(normed, self._weights.output, logits)

    def _attend(self, index: int, layer: LayerWeights, stream: Tensor, inputs: StepInputs) -> None:
        shape, buffers, rows = self.shape, self._buffers, len(stream)
        pages, angles = self._pages[index], self._angles[shape.layer_rotary[index]]
        qkv, query, seen = buffers.qkv[:rows], buffers.query[:rows], buffers.seen[:rows]
        normed = self.numerics.normed(stream, layer.attention_norm, shape.rms_eps)
        self.numerics.multiply(normed, layer.qkv, qkv.view(rows, -1), bias=layer.qkv_bias)
        self._operations.qk_norm_rope_write_kv(
            qkv, inputs.positions, angles.cos, angles.sin, layer.q_norm, layer.k_norm, shape.rms_eps,
            pages.values, pages.scales, inputs.slots, out=query,
        )  # fmt: skip
        self._operations.paged_attention(
            query, pages.values, pages.scales, inputs.row_starts, inputs.context_lens, inputs.tables,
            shape.score_scale, shape.layer_windows[index] or 0, out=seen, workspace=buffers.workspace,
        )  # fmt: skip
        attended = self.numerics.taken(seen.view(rows, -1))
        if layer.attention_post_norm is None:
            self.numerics.multiply(attended, layer.o, stream, residual=stream)
        else:
            self.numerics.multiply(attended, layer.o, buffers.projected[:rows])
            self._add_normed(stream, layer.attention_post_norm)

    def _gate(self, layer: LayerWeights, stream: Tensor) -> None:
        gate_up = self._buffers.gate_up[: len(stream)]
        normed = self.numerics.normed(stream, layer.mlp_norm, self.shape.rms_eps)
        self.numerics.multiply(normed, layer.gate_up, gate_up)
        middle = self.numerics.gated(gate_up, self.shape.activation)
        if layer.mlp_post_norm is None:
            self.numerics.multiply(middle, layer.down, stream, residual=stream)
        else:
            self.numerics.multiply(middle, layer.down, self._buffers.projected[: len(stream)])
            self._add_normed(stream, layer.mlp_post_norm)

    def _add_normed(self, stream: Tensor, weight: Tensor) -> None:
        projected, normed = self._buffers.projected[: len(stream)], self._buffers.post_normed[: len(stream)]
        self._operations.add_rms_norm(projected, None, weight, self.shape.rms_eps, normed)
        stream += normed


class _Pages:
    """Keys and values of one layer; what page 0 holds is never seen."""

    def __init__(self, shape: ModelShape, pages: PageLayout, dtype: torch.dtype, device: torch.device) -> None:
        slots = (pages.count, 2, shape.num_kv_heads, pages.size)
        self.values = torch.zeros(*slots, shape.head_dim, dtype=dtype, device=device)
        self.scales = torch.zeros(slots, device=device) if dtype == torch.int8 else None


class _Buffers:
    """What kernels hand to each other, for the widest step there is; a step uses the first rows."""

    def __init__(self, shape: ModelShape, dtype: torch.dtype, rows: int, context: int, device: torch.device) -> None:
        heads, all_heads, dim = shape.num_heads, shape.num_heads + 2 * shape.num_kv_heads, shape.head_dim
        post_normed = rows if shape.post_norms else 0
        floats = attention_workspace(rows, heads, dim, context)
        self.stream = torch.zeros(rows, shape.hidden_size, device=device)
        self.qkv = torch.zeros(rows, all_heads, dim, dtype=dtype, device=device)
        self.query = torch.zeros(rows, heads, dim, dtype=dtype, device=device)
        self.seen = torch.zeros(rows, heads, dim, dtype=dtype, device=device)
        self.gate_up = torch.zeros(rows, 2 * shape.ffn_size, dtype=dtype, device=device)
        self.projected = torch.zeros(post_normed, shape.hidden_size, device=device)
        self.post_normed = torch.zeros(post_normed, shape.hidden_size, device=device)
        self.workspace = torch.zeros(min(floats, MOST_WORKSPACE), device=device)
