"""Hands out a GGUF file's weights by the engine's own names, as float32, one at a time; knows no layers.

Peak memory beside what the caller keeps: one unpacked tensor.
"""

from typing import Final

import numpy as np

from engine.errors import ModelFileError
from engine.loaders.dequant import Floats, dequantise
from engine.loaders.gguf import GGUFFile
from engine.models.shape import ModelShape

_NAMES: Final = {
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

    def has(self, role: str, layer: int | None = None) -> bool:
        """Whether the file has this tensor."""
        return _name(role, layer) in self._file.tensors

    def take(self, role: str, shape: tuple[int, ...], layer: int | None = None) -> Floats:
        """A tensor as finite float32, query and key rows in the halves layout of RoPE."""
        values = self._unpack(_name(role, layer), shape)
        return _halves_layout(values, self._shape.head_dim) if role in ("q", "k") else values

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


def _name(role: str, layer: int | None) -> str:
    return _NAMES[role] if layer is None else f"blk.{layer}.{_LAYER_NAMES[role]}"


def _halves_layout(values: Floats, head_dim: int) -> Floats:
    """Undoes the converter's interleaving: rows (2i, 2i + 1) of each head become rows (i, i + head_dim / 2)."""
    rows, columns = values.shape
    pairs = values.reshape(rows // head_dim, head_dim // 2, 2, columns)
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(rows, columns)
