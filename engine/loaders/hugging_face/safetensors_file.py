"""Reads one safetensors file's header and hands out its tensors as raw bytes; knows the container, not the model.

Source: https://huggingface.co/docs/safetensors

    | header length, 8 bytes | header: JSON, name -> dtype, shape, data_offsets | tensor data without a gap |
"""

import contextlib
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypeGuard

import numpy as np
from numpy.typing import NDArray

from engine.errors import ModelFileError
from engine.loaders.files import corrupt, map_file, parse_json
from engine.loaders.tensors import BlockFormat, TensorInfo, value_count

_LENGTH_BYTES: Final = 8
_MAX_HEADER_BYTES: Final = 4 << 20  # about 30,000 tensors; parsed, it takes some ten times as much for a moment
_MAX_DIMS: Final = 8
_MAX_OFFSET: Final = 1 << 62
_FORMATS: Final[dict[str, BlockFormat]] = {
    "F32": BlockFormat("F32", 1, 4),
    "F16": BlockFormat("F16", 1, 2),
    "BF16": BlockFormat("BF16", 1, 2),
}
_FOREIGN_TYPES: Final = (
    "BOOL", "U8", "I8", "I16", "U16", "I32", "U32", "I64", "U64", "F64", "C64", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F4",
    "F6_E2M3", "F6_E3M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ",
)  # fmt: skip


class SafetensorsFile:
    """An open file; arrays from `raw` are views into it. Raises ModelFileError from the constructor."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._map = map_file(path)
        try:
            self.tensors: Mapping[str, TensorInfo] = _read_header(self._map, path)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Unmaps the file, once nobody looks at an array of it any more."""
        with contextlib.suppress(BufferError):  # a caller still holds a view: the map goes when the last view does
            self._map.close()

    def raw(self, name: str) -> NDArray[np.uint8]:
        """The bytes of one tensor, a read-only view.  # [nbytes]"""
        info = self.tensors[name]
        return np.frombuffer(self._map, dtype=np.uint8, count=info.nbytes, offset=info.offset)


def _read_header(buffer: mmap.mmap, path: Path) -> dict[str, TensorInfo]:
    size = len(buffer)
    length = int.from_bytes(buffer[:_LENGTH_BYTES], "little")
    data_start = _LENGTH_BYTES + length
    if data_start > size or length > _MAX_HEADER_BYTES:
        raise corrupt(path, f"it claims a header of {length} bytes in a file of {size} (at most {_MAX_HEADER_BYTES})")
    entries = parse_json(buffer[_LENGTH_BYTES:data_start], path)
    entries.pop("__metadata__", None)
    tensors = {name: _tensor(name, entry, data_start, path) for name, entry in entries.items()}
    end = data_start
    for tensor in sorted(tensors.values(), key=lambda tensor: (tensor.offset, tensor.nbytes)):
        if tensor.offset != end:
            raise corrupt(path, f"tensor {tensor.name[:120]!r} overlaps another, or leaves a gap before it")
        end += tensor.nbytes
    if end != size:
        raise corrupt(path, f"its tensors end at byte {end} of {size}")
    return tensors


def _tensor(name: str, entry: object, data_start: int, path: Path) -> TensorInfo:
    shown = name[:120]
    if not isinstance(entry, dict):
        raise corrupt(path, f"tensor {shown!r} is described by something else than an object")
    kind, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not _are_extents(shape, range(_MAX_DIMS + 1)) or not _are_extents(offsets, range(2, 3)):
        raise corrupt(path, f"tensor {shown!r} has no proper shape or offsets")
    layout = _FORMATS.get(kind) if isinstance(kind, str) else None
    if layout is None:
        if kind not in _FOREIGN_TYPES:
            raise corrupt(path, f"tensor {shown!r} has the unknown type {str(kind)[:40]!r}")
        raise ModelFileError(
            f"tensor {shown!r} of {path} is stored as {kind}",
            f"this engine reads {', '.join(_FORMATS)}",
            "use a checkpoint in one of these types",
            code="model_unsupported",
        )
    begin, end = offsets
    if end - begin != value_count(tuple(shape)) * layout.block_bytes:
        raise corrupt(path, f"tensor {shown!r} of shape {tuple(shape)} does not take {end - begin} bytes")
    return TensorInfo(name, tuple(shape), layout, data_start + begin, end - begin)


def _are_extents(value: object, lengths: range) -> TypeGuard[list[int]]:
    return (
        isinstance(value, list)
        and len(value) in lengths
        and all(isinstance(each, int) and not isinstance(each, bool) and 0 <= each < _MAX_OFFSET for each in value)
    )
