"""A decoder-only transformer of any shape: knows the order of its parts, neither their arithmetic nor their options.

    x = embed(token) * embedding_scale
    each layer:  x = x + post_norm(o(attention(heads(qkv(norm(x))))))
                 x = x + post_norm(down(activation(gate_up(norm(x)))))
    logits = output(norm(x))

Parts that a model lacks leave their input unchanged, so that all architectures are read in one place. Which has what:

    Llama, Mistral   nothing more; Mistral's older ones have a sliding window in every layer
    Qwen 2, 2.5      biases in qkv
    Qwen 3           RMS norm of each query and key head
    Gemma 3          that too, post norms, embeddings times sqrt(hidden), GELU, two kinds of layers: each with its own
                     window and rotary

Sources: Touvron et al., 2023 (arXiv 2302.13971); Jiang et al., 2023 (2310.06825); Yang et al., 2024 (2412.15115) and
2025 (2505.09388); Gemma Team, 2025 (2503.19786), each as its published checkpoints lay it out.
"""

import json
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.batch import Batch, PageLayout
from engine.models.shape import ModelShape
from engine.torch_backend.inputs import inputs_of
from engine.torch_backend.layers.heads import Heads
from engine.torch_backend.layers.protocols import Attention, Linear, Norm
from engine.torch_backend.layers.rope import Rotary
from engine.torch_backend.memory_errors import memory_errors
from engine.torch_backend.numerics import Numerics
from engine.torch_backend.parts import Parts
from kernels.dispatch import table_names


@dataclass(frozen=True, slots=True)
class Layer:
    """Query, key and value share one product, and so do gate and up. `rotary` is the place of its rotary."""

    attention_norm: Norm
    qkv: Linear
    heads: Heads
    rotary: int
    attention: Attention
    o: Linear
    attention_post_norm: Norm
    mlp_norm: Norm
    gate_up: Linear
    down: Linear
    mlp_post_norm: Norm


class Decoder:
    """The whole model on one device, with the pages of its attention."""

    def __init__(
        self, parts: Parts, shape: ModelShape, numerics: Numerics, pages: PageLayout, context: int, device: torch.device
    ) -> None:
        self.vocab_size = shape.vocab_size
        self.identity = identity(numerics, device)
        self._device, self._page_size = device, pages.size
        self._windows = frozenset(shape.layer_windows)
        self._rotaries = [Rotary(rotary, shape.head_dim, context, device) for rotary in shape.rotaries]
        self._embed, self._output = parts.embedding_and_output(shape.vocab_size, shape.hidden_size)
        self._embedding_scale = shape.embedding_scale
        self._activation = numerics.activations[shape.activation]
        self._layers = [_layer(parts, index, shape, numerics, pages, device) for index in range(shape.num_layers)]
        self._final_norm = parts.norm("final_norm", shape.hidden_size)

    @memory_errors()
    @torch.inference_mode()
    def forward(self, batch: Batch) -> NDArray[np.float32]:
        """The hidden state of every row after the last layer.  # [rows, hidden]"""
        inputs = inputs_of(batch, self._page_size, self._windows, self._device)
        rotations = [rotary.at(inputs.positions) for rotary in self._rotaries]
        x = self._embed(inputs.token_ids).mul_(self._embedding_scale)  # [rows, hidden]
        for layer in self._layers:
            heads = layer.heads(layer.qkv(layer.attention_norm(x)), rotations[layer.rotary])
            x = x + layer.attention_post_norm(layer.o(layer.attention(heads, inputs)))
            middle = self._activation(layer.gate_up(layer.mlp_norm(x)))
            x = x + layer.mlp_post_norm(layer.down(middle))
        return _to_numpy(x)

    @memory_errors()
    @torch.inference_mode()
    def logits(self, hidden: NDArray[np.float32]) -> NDArray[np.float32]:
        """hidden [rows, hidden] -> [rows, vocab]."""
        rows = torch.from_numpy(hidden).to(self._device)
        return _to_numpy(self._output(self._final_norm(rows)))


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


def _layer(
    parts: Parts, index: int, shape: ModelShape, numerics: Numerics, pages: PageLayout, device: torch.device
) -> Layer:
    hidden, queries, keys, ffn = shape.hidden_size, shape.query_size, shape.kv_size, shape.ffn_size
    qk_norms = [parts.norm(role, shape.head_dim, index) if shape.qk_norm else None for role in ("q_norm", "k_norm")]
    return Layer(
        attention_norm=parts.norm("attention_norm", hidden, index),
        qkv=parts.linear({"q": queries, "k": keys, "v": keys}, hidden, index, bias=shape.qkv_bias),
        heads=Heads(shape, *qk_norms),
        rotary=shape.layer_rotary[index],
        attention=numerics.attention(shape, shape.layer_windows[index], pages, device),
        o=parts.linear({"o": hidden}, queries, index),
        attention_post_norm=parts.norm_if(shape.post_norms, "attention_post_norm", hidden, index),
        mlp_norm=parts.norm("mlp_norm", hidden, index),
        gate_up=parts.linear({"gate": ffn, "up": ffn}, hidden, index),
        down=parts.linear({"down": hidden}, ffn, index),
        mlp_post_norm=parts.norm_if(shape.post_norms, "mlp_post_norm", hidden, index),
    )


def _to_numpy(x: Tensor) -> NDArray[np.float32]:
    values: NDArray[np.float32] = x.cpu().numpy()
    return values
