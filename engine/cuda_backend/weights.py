"""A decoder's weights on a device, and how a checkpoint becomes them; knows roles and sizes, no order."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.loaders.checkpoint import Checkpoint
from engine.models.key_balance import balanced
from engine.models.shape import ModelShape
from kernels import ops


@dataclass(frozen=True, slots=True)
class Matrix:
    """`values` [out, in]: int8 with a float32 `scale` [out], or a float type without."""

    values: Tensor
    scale: Tensor | None = None


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """Norm weights and biases are float32. Query, key and value share one matrix, in this order, and so do gate and up.
    What a model lacks is None."""

    attention_norm: Tensor
    qkv: Matrix
    qkv_bias: Tensor | None
    q_norm: Tensor | None
    k_norm: Tensor | None
    o: Matrix
    attention_post_norm: Tensor | None
    mlp_norm: Tensor
    gate_up: Matrix
    down: Matrix
    mlp_post_norm: Tensor | None


@dataclass(frozen=True, slots=True)
class DecoderWeights:
    """`output` is the embedding itself where the model has no other."""

    embedding: Matrix
    output: Matrix
    final_norm: Tensor
    layers: tuple[LayerWeights, ...]


def load_weights(checkpoint: Checkpoint, shape: ModelShape, device: torch.device) -> DecoderWeights:
    """Every weight as int8 with a scale for each output. Raises ModelFileError.

    Peak memory beside what is kept: the tensors of one matrix as float32, on the host and on the device.
    """
    return _Loader(balanced(checkpoint, shape), shape, device).decoder()


class _Loader:
    """One checkpoint on its way to one device."""

    def __init__(self, checkpoint: Checkpoint, shape: ModelShape, device: torch.device) -> None:
        self._checkpoint, self._shape, self._device = checkpoint, shape, device

    def decoder(self) -> DecoderWeights:
        shape = self._shape
        embedding = self._matrix({"embedding": shape.vocab_size}, shape.hidden_size)
        own = self._checkpoint.has("output")
        return DecoderWeights(
            embedding=embedding,
            output=self._matrix({"output": shape.vocab_size}, shape.hidden_size) if own else embedding,
            final_norm=self._vector("final_norm", shape.hidden_size),
            layers=tuple(self._layer(index) for index in range(shape.num_layers)),
        )

    def _layer(self, index: int) -> LayerWeights:
        shape = self._shape
        hidden, queries, keys, ffn = shape.hidden_size, shape.query_size, shape.kv_size, shape.ffn_size
        attended = {"q": queries, "k": keys, "v": keys}
        biases = [self._vector(f"{role}_bias", size, index) for role, size in attended.items() if shape.qkv_bias]

        def norm(role: str, width: int, *, present: bool) -> Tensor | None:
            return self._vector(role, width, index) if present else None

        return LayerWeights(
            attention_norm=self._vector("attention_norm", hidden, index),
            qkv=self._matrix(attended, hidden, index),
            qkv_bias=torch.cat(biases) if biases else None,
            q_norm=norm("q_norm", shape.head_dim, present=shape.qk_norm),
            k_norm=norm("k_norm", shape.head_dim, present=shape.qk_norm),
            o=self._matrix({"o": hidden}, queries, index),
            attention_post_norm=norm("attention_post_norm", hidden, present=shape.post_norms),
            mlp_norm=self._vector("mlp_norm", hidden, index),
            gate_up=self._matrix({"gate": ffn, "up": ffn}, hidden, index),
            down=self._matrix({"down": hidden}, ffn, index),
            mlp_post_norm=norm("mlp_post_norm", hidden, present=shape.post_norms),
        )

    def _matrix(self, outputs: Mapping[str, int], inputs: int, layer: int | None = None) -> Matrix:
        """One matrix for several roles with the same inputs: their outputs one after the other."""
        parts = [ops.quantize_rows(self._tensor(role, (size, inputs), layer)) for role, size in outputs.items()]
        values, scales = zip(*parts, strict=True)
        return Matrix(torch.cat(values), torch.cat(scales).squeeze(1))

    def _vector(self, role: str, width: int, layer: int | None = None) -> Tensor:
        return self._tensor(role, (width,), layer)

    def _tensor(self, role: str, shape: tuple[int, ...], layer: int | None) -> Tensor:
        return torch.from_numpy(self._checkpoint.take(role, shape, layer)).to(self._device)
