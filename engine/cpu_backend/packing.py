"""Turns a checkpoint's float32 weights into the arrays that kernels/cpu reads: int8, in tiles, padded; knows no files.

Peak memory beside the arrays: one tensor as the checkpoint hands it out, and a slice of it on its way.
"""

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from engine.loaders.checkpoint import Checkpoint
from engine.models.shape import ModelShape

GROUP: Final = 64
"""Inputs that share a scale, and outputs of one tile: all widths are padded to whole groups."""
_LEVELS: Final = np.float32(127.0)
_SMALLEST_MAX: Final = np.float32(1e-30)
_ROWS_AT_ONCE: Final = 4096

Arrays: TypeAlias = dict[str, NDArray[np.generic]]
Floats: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ArrayLayout:
    """One array of packed weights."""

    shape: tuple[int, ...]
    dtype: type[np.generic]

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


def padded(width: int) -> int:
    """The next multiple of 64."""
    return -(-width // GROUP) * GROUP


def layout(shape: ModelShape, *, tied: bool) -> dict[str, ArrayLayout]:
    """The arrays of a model, by the names that kernels/cpu/decoder.py gives them."""
    layers, hidden, ffn, head = (
        shape.num_layers,
        padded(shape.hidden_size),
        padded(shape.ffn_size),
        padded(shape.head_dim),
    )
    heads = shape.num_heads + 2 * shape.num_kv_heads
    rows = {
        "embedding": (padded(shape.vocab_size), hidden),
        "qkv": (heads * head, hidden),
        "o": (hidden, shape.num_heads * head),
        "gate_up": (2 * ffn, hidden),
        "down": (hidden, ffn),
    }
    if not tied:
        rows["output"] = rows["embedding"]
    arrays = {}
    for name, (outputs, inputs) in rows.items():
        lead = () if name in ("embedding", "output") else (layers,)
        arrays[name] = ArrayLayout((*lead, outputs // GROUP, inputs * GROUP), np.uint8)
        arrays[f"{name}_scale"] = ArrayLayout((*lead, outputs), np.float32)
    norms = {
        "attention_norm": hidden,
        "mlp_norm": hidden,
        "attention_post_norm": hidden * shape.post_norms,
        "mlp_post_norm": hidden * shape.post_norms,
        "q_norm": head * shape.qk_norm,
        "k_norm": head * shape.qk_norm,
        "qkv_bias": heads * head * shape.qkv_bias,
    }
    arrays["final_norm"] = ArrayLayout((hidden,), np.float32)
    return arrays | {name: ArrayLayout((layers, width), np.float32) for name, width in norms.items()}


def pack(checkpoint: Checkpoint, shape: ModelShape, into: Arrays) -> None:
    """Fills zeroed arrays of `layout`. Raises ModelFileError for a tensor that is missing or damaged."""
    table = (shape.vocab_size, shape.hidden_size)
    pack_rows(checkpoint.take("embedding", table), into["embedding"], into["embedding_scale"])
    if "output" in into:
        pack_rows(checkpoint.take("output", table), into["output"], into["output_scale"])
    _fill(into["final_norm"], checkpoint.take("final_norm", (shape.hidden_size,)))
    for layer in range(shape.num_layers):
        _pack_attention(checkpoint, shape, layer, into)
        _pack_mlp(checkpoint, shape, layer, into)


def _pack_attention(checkpoint: Checkpoint, shape: ModelShape, layer: int, into: Arrays) -> None:
    hidden, head = shape.hidden_size, padded(shape.head_dim)
    counts = {"q": shape.num_heads, "k": shape.num_kv_heads, "v": shape.num_kv_heads}
    first = 0
    for name, heads in counts.items():
        past = first + heads * head
        rows = checkpoint.take(name, (heads * shape.head_dim, hidden), layer)
        whole_heads = _pad(rows.reshape(heads, shape.head_dim, hidden), 1).reshape(heads * head, hidden)
        tiles = slice(first // GROUP, past // GROUP)
        pack_rows(whole_heads, into["qkv"][layer, tiles], into["qkv_scale"][layer, first:past])
        if shape.qkv_bias:
            bias = checkpoint.take(f"{name}_bias", (heads * shape.head_dim,), layer)
            into["qkv_bias"][layer, first:past] = _pad(bias.reshape(heads, -1), 1).ravel()
        first = past
    columns = checkpoint.take("o", (hidden, shape.query_size), layer)
    by_head = _pad(columns.reshape(hidden, shape.num_heads, shape.head_dim), 2).reshape(hidden, -1)
    pack_rows(by_head, into["o"][layer], into["o_scale"][layer])
    norms = {"attention_norm": hidden}
    norms |= {"q_norm": shape.head_dim, "k_norm": shape.head_dim} if shape.qk_norm else {}
    norms |= {"attention_post_norm": hidden} if shape.post_norms else {}
    for name, width in norms.items():
        _fill(into[name][layer], checkpoint.take(name, (width,), layer))


def _pack_mlp(checkpoint: Checkpoint, shape: ModelShape, layer: int, into: Arrays) -> None:
    hidden, ffn = shape.hidden_size, shape.ffn_size
    half = padded(ffn) // GROUP
    for name, tiles in (("gate", slice(0, half)), ("up", slice(half, 2 * half))):
        scales = into["gate_up_scale"][layer, tiles.start * GROUP : tiles.stop * GROUP]
        pack_rows(checkpoint.take(name, (ffn, hidden), layer), into["gate_up"][layer, tiles], scales)
    pack_rows(checkpoint.take("down", (hidden, ffn), layer), into["down"][layer], into["down_scale"][layer])
    for name in ("mlp_norm", "mlp_post_norm") if shape.post_norms else ("mlp_norm",):
        _fill(into[name][layer], checkpoint.take(name, (hidden,), layer))


def _pad(values: Floats, axis: int) -> Floats:
    """Zeros up to a whole group along one axis."""
    missing = padded(values.shape[axis]) - values.shape[axis]
    return np.pad(values, [(0, missing if each == axis else 0) for each in range(values.ndim)])


def _fill(to: NDArray[np.generic], values: Floats) -> None:
    to[: len(values)] = values


def pack_rows(values: Floats, tiles: NDArray[np.generic], scales: NDArray[np.generic]) -> None:
    """values [out, in] -> packed tiles uint8 [tiles, in * 64], scales [64 * tiles].

    scale = max|w| / 127 of each output;  byte = round(w * 127 / max|w|) + 128
    """
    inputs = tiles.shape[1] // GROUP
    for start in range(0, len(values), _ROWS_AT_ONCE):
        part = values[start : start + _ROWS_AT_ONCE]
        largest = np.maximum(np.abs(part).max(axis=1), _SMALLEST_MAX)
        whole = np.zeros((padded(len(part)), inputs), dtype=np.int8)
        whole[: len(part), : part.shape[1]] = np.rint(part * (_LEVELS / largest)[:, None])
        unsigned = whole.view(np.uint8) ^ 0x80
        quads = unsigned.view(np.uint32).reshape(-1, GROUP, inputs // 4)  # [tiles, 64 outputs, quads of inputs]
        first = start // GROUP
        tiles[first : first + len(quads)] = (
            np.ascontiguousarray(quads.transpose(0, 2, 1)).view(np.uint8).reshape(len(quads), -1)
        )
        scales[start : start + len(part)] = largest / _LEVELS
    if len(values) % GROUP == 0 and padded(len(values)) // GROUP == len(tiles):
        return
    tiles[padded(len(values)) // GROUP :] = 0x80
