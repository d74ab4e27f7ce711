"""Turns a checkpoint's weights into the arrays that kernels/cpu reads: tiles of int8 or of levels; knows no files.

Peak memory beside the arrays: one tensor as the checkpoint hands it out, and a slice of it on its way.
"""

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from engine.loaders.checkpoint import Checkpoint, Levels
from engine.models.shape import ModelShape

GROUP: Final = 64
"""Inputs that share a scale, and outputs of one tile: all widths are padded to whole groups."""
GROUP_BYTES: Final = GROUP * GROUP
"""Of a group of one tile as int8."""
RUN: Final = 32
"""Inputs that share a step and a lowest level."""
LEVEL_GROUP_BYTES: Final = GROUP_BYTES // 2 + GROUP * (GROUP // RUN) * 4
"""Of a group of one tile as levels: half a byte for each weight, a step and a lowest level for each run."""
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


def kept_as_levels(checkpoint: Checkpoint, shape: ModelShape) -> frozenset[str]:
    """Which arrays can keep their weights in the four bits that they have in the file: those without any padding."""
    roles = {"qkv": ("q", "k", "v"), "o": ("o",), "gate_up": ("gate", "up"), "down": ("down",)}
    if any(width % GROUP for width in (shape.hidden_size, shape.head_dim, shape.ffn_size)):
        return frozenset()
    return frozenset(
        name
        for name, own in roles.items()
        if all(checkpoint.has_levels(role, layer) for role in own for layer in range(shape.num_layers))
    )


def layout(
    shape: ModelShape, *, tied: bool, levels: frozenset[str] = frozenset(), both: bool = False
) -> dict[str, ArrayLayout]:
    """The arrays of a model, by the names that kernels/cpu/records.py gives them; what is kept as levels has the name
    of its array and `_levels`. With `both`, its bytes too."""
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
        tiles, groups = (*lead, outputs // GROUP), inputs // GROUP
        if name in levels:
            arrays[f"{name}_levels"] = ArrayLayout((*tiles, groups * LEVEL_GROUP_BYTES), np.uint8)
        if name not in levels or both:
            arrays[name] = ArrayLayout((*tiles, groups * GROUP_BYTES), np.uint8)
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
        _pack_linear(checkpoint, name, layer, whole_heads, into, "qkv", first)
        if shape.qkv_bias:
            bias = checkpoint.take(f"{name}_bias", (heads * shape.head_dim,), layer)
            into["qkv_bias"][layer, first:past] = _pad(bias.reshape(heads, -1), 1).ravel()
        first = past
    columns = checkpoint.take("o", (hidden, shape.query_size), layer)
    by_head = _pad(columns.reshape(hidden, shape.num_heads, shape.head_dim), 2).reshape(hidden, -1)
    _pack_linear(checkpoint, "o", layer, by_head, into, "o", 0)
    norms = {"attention_norm": hidden}
    norms |= {"q_norm": shape.head_dim, "k_norm": shape.head_dim} if shape.qk_norm else {}
    norms |= {"attention_post_norm": hidden} if shape.post_norms else {}
    for name, width in norms.items():
        _fill(into[name][layer], checkpoint.take(name, (width,), layer))


def _pack_mlp(checkpoint: Checkpoint, shape: ModelShape, layer: int, into: Arrays) -> None:
    hidden, ffn = shape.hidden_size, shape.ffn_size
    for name, first in (("gate", 0), ("up", padded(ffn))):
        rows = _pad(checkpoint.take(name, (ffn, hidden), layer), 0)
        _pack_linear(checkpoint, name, layer, rows, into, "gate_up", first)
    _pack_linear(checkpoint, "down", layer, checkpoint.take("down", (hidden, ffn), layer), into, "down", 0)
    for name in ("mlp_norm", "mlp_post_norm") if shape.post_norms else ("mlp_norm",):
        _fill(into[name][layer], checkpoint.take(name, (hidden,), layer))


def _pack_linear(
    checkpoint: Checkpoint, role: str, layer: int, values: Floats, into: Arrays, name: str, first: int
) -> None:
    """A role's weights from output `first` of a layer of the array `name` on."""
    past = first + padded(len(values))
    where, scales = slice(first // GROUP, past // GROUP), into[f"{name}_scale"][layer, first:past]
    tiles = into[name][layer, where] if name in into else None
    if f"{name}_levels" in into:
        levels = checkpoint.levels(role, values.shape, layer)
        pack_levels(values, levels, into[f"{name}_levels"][layer, where], scales, tiles)
    else:
        assert tiles is not None
        pack_rows(values, tiles, scales)


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
        packed = _in_tiles(whole.view(np.uint8) ^ np.uint8(0x80))
        tiles[start // GROUP : start // GROUP + len(packed)] = packed
        scales[start : start + len(part)] = largest / _LEVELS
    if len(values) % GROUP == 0 and padded(len(values)) // GROUP == len(tiles):
        return
    tiles[padded(len(values)) // GROUP :] = 0x80


def _in_tiles(unsigned: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Bytes [out, in] in the order of kernels/cpu/matmul.py.  # [out / 64, in * 64]"""
    quads = unsigned.view(np.uint32).reshape(-1, GROUP, unsigned.shape[1] // 4)  # [tiles, 64 outputs, quads of inputs]
    return np.ascontiguousarray(quads.transpose(0, 2, 1)).view(np.uint8).reshape(len(quads), -1)


def pack_levels(
    values: Floats,
    levels: Levels,
    tiles: NDArray[np.generic],
    scales: NDArray[np.generic],
    in_bytes: NDArray[np.generic] | None = None,
) -> None:
    """values [out, in], each one of its run's levels -> tiles uint8 [out / 64, in * 40], scales [out]; and the bytes
    that these tiles stand for, where they are wanted: uint8 [out / 64, in * 64].

    scale = max|w| / 127 of each output;  step, low in 256ths of it;  byte = (low + step * level) >> 8
    Sizes are multiples of 64. Rounding step and low moves one byte in some thirty by 1 from where `pack_rows` puts it.
    """
    for start in range(0, len(values), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        part, step, lowest = values[rows], levels.step[rows], levels.lowest[rows]
        largest = np.maximum(np.abs(part).max(axis=1), _SMALLEST_MAX)
        unit = (np.float64(_LEVELS) / largest)[:, None]
        pairs = np.stack((_in_256ths(step * unit), _in_256ths(lowest * unit + 128.5)), axis=-1)  # [out, runs, 2]
        numbers, where = _level_numbers(part, step, lowest), slice(start // GROUP, start // GROUP + len(part) // GROUP)
        tiles[where] = packed_levels(numbers, pairs)
        if in_bytes is not None:
            in_bytes[where] = _in_tiles(bytes_of_levels(numbers, pairs))
        scales[rows] = largest / _LEVELS


def bytes_of_levels(numbers: NDArray[np.uint16], pairs: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """(low + step * level) >> 8, modulo 2^16 as the unpacking reckons.  # [out, in]"""
    step, low = (np.repeat(pairs[..., part], RUN, axis=1) for part in (0, 1))
    return ((low + step * numbers) >> np.uint16(8)).astype(np.uint8)


def _level_numbers(values: Floats, step: Floats, lowest: Floats) -> NDArray[np.uint16]:
    """Which of its run's levels each value is.  # [out, in], 0 to 15"""
    runs = values.reshape(len(values), -1, RUN) - lowest[:, :, None]
    numbers = np.rint(runs / np.where(step == 0, np.float32(1.0), step)[:, :, None])
    return np.clip(numbers, 0, 15).astype(np.uint16).reshape(values.shape)


def _in_256ths(values: NDArray[np.float64]) -> NDArray[np.uint16]:
    """Whole numbers modulo 2^16, as the unpacking reckons: what no weight of the run uses may be anything."""
    return np.rint(np.clip(values * 256.0, -(2.0**40), 2.0**40)).astype(np.int64).astype(np.uint16)


def packed_levels(numbers: NDArray[np.uint16], pairs: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Level numbers [out, in] and (step, low) of each run [out, in / 32, 2] in the order of kernels/cpu/levels.py."""
    tiles = len(numbers) // GROUP
    #   tile, quarter, output, run, pair of quads, quad, half, one of two
    each = numbers.reshape(tiles, 4, 16, -1, 4, 2, 2, 2)
    words = each[..., 0, :, 0] | each[..., 0, :, 1] << 4 | each[..., 1, :, 0] << 8 | each[..., 1, :, 1] << 12
    ordered = words.transpose(0, 3, 1, 4, 2, 5)  # tile, run, quarter, pair, output, half
    heads = pairs.reshape(tiles, 4, 16, -1, 2).transpose(0, 3, 1, 2, 4)  # tile, run, quarter, output, step or low
    lines = np.concatenate((heads.reshape(*heads.shape[:3], 1, 32), ordered.reshape(*ordered.shape[:4], 32)), axis=3)
    return lines.reshape(tiles, -1).view(np.uint8)
