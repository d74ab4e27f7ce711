"""Llama: RMS norm, rotary grouped-query attention, gated SiLU MLP; knows the architecture, not the arithmetic.

Source: Touvron et al., 2023 (arXiv 2302.13971), as the published checkpoints lay it out.
"""

import json
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.batch import Batch, PageLayout
from engine.loaders.checkpoint import Checkpoint
from engine.models.shape import ModelShape
from engine.torch_backend.inputs import inputs_of
from engine.torch_backend.layers.protocols import Attention, Linear
from engine.torch_backend.layers.rope import RotaryTable
from engine.torch_backend.numerics import Numerics
from kernels.dispatch import table_names


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
        checkpoint: Checkpoint,
        shape: ModelShape,
        numerics: Numerics,
        pages: PageLayout,
        max_context: int,
        device: torch.device,
    ) -> None:
        self.vocab_size = shape.vocab_size
        self.identity = identity(numerics, device)
        self._device, self._page_size = device, pages.size
        self._numerics, self._eps = numerics, shape.rms_eps
        self._rotary = RotaryTable(shape, max_context, device)
        table = (shape.vocab_size, shape.hidden_size)
        embedding = numerics.weight(torch.from_numpy(checkpoint.take("embedding", table)))
        output = (
            numerics.weight(torch.from_numpy(checkpoint.take("output", table)))
            if checkpoint.has("output")
            else embedding
        )
        self._embed, self._output = numerics.embedding(embedding), numerics.linear(output)
        self._final_norm = torch.from_numpy(checkpoint.take("final_norm", (shape.hidden_size,))).to(device)
        self._layers = [
            _load_layer(checkpoint, index, shape, numerics, pages, device) for index in range(shape.num_layers)
        ]

    @torch.inference_mode()
    def forward(self, batch: Batch) -> NDArray[np.float32]:
        """The hidden state of every row after the last layer.  # [rows, hidden]"""
        norm, activation = self._numerics.norm, self._numerics.gated_activation
        inputs = inputs_of(batch, self._page_size, self._device)
        rotation = self._rotary.at(inputs.positions)
        x = self._embed(inputs.token_ids)  # [rows, hidden]
        for layer in self._layers:
            qkv = layer.qkv(norm(x, layer.attention_norm, self._eps))
            x = x + layer.o(layer.attention(qkv, rotation, inputs))
            gate_up = layer.gate_up(norm(x, layer.mlp_norm, self._eps))
            x = x + layer.down(activation(gate_up))
        return to_numpy(x)

    @torch.inference_mode()
    def logits(self, hidden: NDArray[np.float32]) -> NDArray[np.float32]:
        """hidden [rows, hidden] -> [rows, vocab]."""
        rows = torch.from_numpy(hidden).to(self._device)
        return to_numpy(self._output(self._numerics.norm(rows, self._final_norm, self._eps)))


def to_numpy(x: Tensor) -> NDArray[np.float32]:
    values: NDArray[np.float32] = x.cpu().numpy()
    return values


def identity(numerics: Numerics, device: torch.device) -> dict[str, str]:
    """What may change the bits of a token, besides the weights."""
    on_cuda = device.type == "cuda"
    return {
        "backend": "torch",
        "numerics": numerics.name,
        "road": numerics.road,
        "kernels": json.dumps(table_names(device.type), sort_keys=True),
        "device": torch.cuda.get_device_name(device) if on_cuda else torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
    }


def _load_layer(
    checkpoint: Checkpoint,
    index: int,
    shape: ModelShape,
    numerics: Numerics,
    pages: PageLayout,
    device: torch.device,
) -> LlamaLayer:
    hidden, ffn = shape.hidden_size, shape.ffn_size
    q_size, kv_size = shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim

    def fused(*parts: tuple[str, int, int]) -> Linear:
        loaded = [torch.from_numpy(checkpoint.take(name, (rows, columns), index)) for name, rows, columns in parts]
        return numerics.linear(numerics.weight(torch.cat(loaded)))

    return LlamaLayer(
        attention_norm=torch.from_numpy(checkpoint.take("attention_norm", (hidden,), index)).to(device),
        qkv=fused(("q", q_size, hidden), ("k", kv_size, hidden), ("v", kv_size, hidden)),
        attention=numerics.attention(shape, pages, device),
        o=fused(("o", hidden, q_size)),
        mlp_norm=torch.from_numpy(checkpoint.take("mlp_norm", (hidden,), index)).to(device),
        gate_up=fused(("gate", ffn, hidden), ("up", ffn, hidden)),
        down=fused(("down", hidden, ffn)),
    )
