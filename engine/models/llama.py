"""Llama: RMS norm, rotary grouped-query attention, gated SiLU MLP; knows the architecture, not the arithmetic.

Source: Touvron et al., 2023 (arXiv 2302.13971), as the published checkpoints lay it out.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.batch import Batch, PageLayout
from engine.layers.protocols import Attention, Linear
from engine.layers.rope import RotaryTable
from engine.loaders.weights import GGUFCheckpoint
from engine.models.shape import ModelShape
from engine.numerics import Numerics


@dataclass(frozen=True, slots=True)
class LlamaLayer:
    """One block. Query, key and value share one product, and so do gate and up."""

    attention_norm: Tensor  # [hidden]
    qkv: Linear
    attention: Attention
    o: Linear
    mlp_norm: Tensor  # [hidden]
    gate_up: Linear
    down: Linear


class Llama:
    """The whole model on one device, with the pages of its attention."""

    def __init__(
        self,
        checkpoint: GGUFCheckpoint,
        shape: ModelShape,
        numerics: Numerics,
        pages: PageLayout,
        max_context: int,
        device: torch.device,
    ) -> None:
        self.vocab_size = shape.vocab_size
        self._numerics, self._eps = numerics, shape.rms_eps
        self._rotary = RotaryTable(shape, max_context, device)
        table = (shape.vocab_size, shape.hidden_size)
        embedding = numerics.weight(checkpoint.take("embedding", table))
        output = numerics.weight(checkpoint.take("output", table)) if checkpoint.has_output() else embedding
        self._embed, self._output = numerics.embedding(embedding), numerics.linear(output)
        self._final_norm = checkpoint.take("final_norm", (shape.hidden_size,)).to(device)
        self._layers = [
            _load_layer(checkpoint, index, shape, numerics, pages, device) for index in range(shape.num_layers)
        ]

    def forward(self, batch: Batch) -> Tensor:
        """The hidden state of every row after the last layer.  # [rows, hidden]"""
        norm, activation = self._numerics.norm, self._numerics.gated_activation
        rotation = self._rotary.at(batch.positions)
        x = self._embed(batch.token_ids)  # [rows, hidden]
        for layer in self._layers:
            qkv = layer.qkv(norm(x, layer.attention_norm, self._eps))
            x = x + layer.o(layer.attention(qkv, rotation, batch))
            gate_up = layer.gate_up(norm(x, layer.mlp_norm, self._eps))
            x = x + layer.down(activation(gate_up))
        return x

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden [rows, hidden] -> [rows, vocab]. Gather the rows that sample first: this is the widest product."""
        return self._output(self._numerics.norm(hidden, self._final_norm, self._eps))


def _load_layer(
    checkpoint: GGUFCheckpoint,
    index: int,
    shape: ModelShape,
    numerics: Numerics,
    pages: PageLayout,
    device: torch.device,
) -> LlamaLayer:
    hidden, ffn = shape.hidden_size, shape.ffn_size
    q_size, kv_size = shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim

    def fused(*parts: tuple[str, int, int]) -> Linear:
        loaded = [checkpoint.take_layer(index, name, (rows, columns)) for name, rows, columns in parts]
        return numerics.linear(numerics.weight(torch.cat(loaded)))

    return LlamaLayer(
        attention_norm=checkpoint.take_layer(index, "attention_norm", (hidden,)).to(device),
        qkv=fused(("q", q_size, hidden), ("k", kv_size, hidden), ("v", kv_size, hidden)),
        attention=numerics.attention(shape, pages, device),
        o=fused(("o", hidden, q_size)),
        mlp_norm=checkpoint.take_layer(index, "mlp_norm", (hidden,)).to(device),
        gate_up=fused(("gate", ffn, hidden), ("up", ffn, hidden)),
        down=fused(("down", hidden, ffn)),
    )
