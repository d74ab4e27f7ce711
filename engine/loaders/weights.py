"""Hands out a GGUF file's weights by the engine's own names, as float32, one at a time; knows no layers.

Peak memory beside what the caller keeps: one unpacked tensor.
"""

from typing import Final

import numpy as np
import torch
from torch import Tensor

from engine.errors import ModelFileError
from engine.loaders.dequant import Floats, dequantise
from engine.loaders.gguf import GGUFFile
from engine.models.shape import ModelShape

_MODEL_NAMES: Final = {
    "embedding": "token_embd.weight",
    "final_norm": "output_norm.weight",
    "output": "output.weight",
}
_LAYER_NAMES: Final = {
    "attention_norm": "attn_norm.weight",
    "q": "attn_q.weight",
    "k": "attn_k.weight",
    "v": "attn_v.weight",
    "o": "attn_output.weight",
    "mlp_norm": "ffn_norm.weight",
    "gate": "ffn_gate.weight",
    "up": "ffn_up.weight",
    "down": "ffn_down.weight",
}


class GGUFCheckpoint:
    """The weights of one open file. `take` raises ModelFileError for a tensor that is missing or of another shape."""

    def __init__(self, file: GGUFFile, shape: ModelShape) -> None:
        self._file = file
        self._shape = shape

    def has_output(self) -> bool:
        """False where the output matrix is the embedding itself."""
        return _MODEL_NAMES["output"] in self._file.tensors

    def take(self, name: str, expected: tuple[int, ...]) -> Tensor:
        """A tensor of the whole model ("embedding", "final_norm", "output") as float32 of the expected shape."""
        return torch.from_numpy(self._unpack(_MODEL_NAMES[name], expected))

    def take_layer(self, layer: int, name: str, expected: tuple[int, ...]) -> Tensor:
        """A tensor of one layer ("q", "gate", ...), with query and key rows in the halves layout of RoPE."""
        values = self._unpack(f"blk.{layer}.{_LAYER_NAMES[name]}", expected)
        if name in ("q", "k"):
            values = _halves_layout(values, self._shape.head_dim)
        return torch.from_numpy(values)

    def _unpack(self, name: str, expected: tuple[int, ...]) -> Floats:
        info = self._file.tensors.get(name)
        if info is None or info.shape != expected:
            found = "missing" if info is None else f"of shape {info.shape}"
            raise ModelFileError(
                f"damaged model file {self._file.path}",
                f"tensor {name!r} is {found}; its metadata asks for {expected}",
                "download or convert the file again",
            )
        values = dequantise(self._file.raw(name), info.format.name, info.format.block_bytes, info.shape)
        if not np.isfinite(values).all():
            raise ModelFileError(
                f"damaged model file {self._file.path}",
                f"tensor {name!r} holds values that are not finite numbers",
                "download or convert the file again",
            )
        return values


def _halves_layout(values: Floats, head_dim: int) -> Floats:
    """Undoes the converter's interleaving: rows (2i, 2i + 1) of each head become rows (i, i + head_dim / 2)."""
    rows, columns = values.shape
    pairs = values.reshape(rows // head_dim, head_dim // 2, 2, columns)
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(rows, columns)
