"""Reads a GGUF file's header and hands out its tensors as raw bytes; knows the container, not what a tensor means.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md

    | magic, version, counts | metadata (key, type, value)* | tensor infos* | padding | tensor data |

Every length is checked against the file before anything is allocated for it, and a file may have holes that take no
room: so a header has a limit of its own, and a damaged file costs an error and never more than a few hundred MB.
"""

import contextlib
import mmap
import struct
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from engine.errors import ModelFileError
from engine.loaders.files import corrupt, map_file
from engine.loaders.gguf.formats import FOREIGN_TYPES, FORMATS
from engine.loaders.metadata import kind_of
from engine.loaders.tensors import TensorInfo, value_count

MetaValue: TypeAlias = int | float | bool | str | list[str] | NDArray[np.generic]

_MAGIC: Final = b"GGUF"
_VERSIONS: Final = (2, 3)
# Gemma 3, with the largest vocabulary of all, has a header of 7 MB with 262,144 tokens.
_MAX_HEADER_BYTES: Final = 64 << 20
_MAX_STRINGS: Final = 1 << 20  # in one array
_MAX_ENTRIES: Final = 1 << 16  # of metadata, and of tensors
_MAX_KEY_BYTES: Final = 65_535
_MAX_DIMS: Final = 4
_DEFAULT_ALIGNMENT: Final = 32
_MAX_ALIGNMENT: Final = 1 << 20
_MIN_META_BYTES: Final = 8 + 4 + 1  # empty key, type, one byte of value
_MIN_TENSOR_BYTES: Final = 8 + 4 + 8 + 4 + 8  # empty name, one dimension

_STRING: Final = 8
_ARRAY: Final = 9
_BOOL: Final = 7
_SCALARS: Final[dict[int, str]] = {
    0: "<u1",
    1: "<i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    7: "|b1",
    10: "<u8",
    11: "<i8",
    12: "<f8",
}


class GGUFFile:
    """An open GGUF file. Use as a context manager; arrays from `raw` are views into the mapped file.

    Raises ModelFileError from the constructor when the file is missing, truncated, corrupt or of a foreign version.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._map = map_file(self.path)
        try:
            header = _Header(self._map, self.path)
            self.metadata: Mapping[str, MetaValue] = header.metadata
            self.tensors: Mapping[str, TensorInfo] = header.tensors
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Unmaps the file, once nobody looks at an array of it any more."""
        with contextlib.suppress(BufferError):  # a caller still holds a view: the map goes when the last view does
            self._map.close()

    def raw(self, name: str) -> NDArray[np.uint8]:
        """The packed bytes of one tensor, a read-only view.  # [nbytes]"""
        info = self.tensors[name]
        return np.frombuffer(self._map, dtype=np.uint8, count=info.nbytes, offset=info.offset)


class _Header:
    """One pass over the header. `_at` is the reading position; nothing is read or allocated beyond `_end`."""

    def __init__(self, buffer: mmap.mmap, path: Path) -> None:
        self._buffer = buffer
        self._path = path
        self._size = len(buffer)
        self._end = min(self._size, _MAX_HEADER_BYTES)
        self._at = 0
        self._check_magic()
        tensor_count, meta_count = self._u64("tensor count"), self._u64("metadata count")
        self._check_count(meta_count, _MIN_META_BYTES, "metadata entries", _MAX_ENTRIES)
        self.metadata = self._read_metadata(meta_count)
        self._check_count(tensor_count, _MIN_TENSOR_BYTES, "tensors", _MAX_ENTRIES)
        self.tensors = self._read_tensors(tensor_count)

    def _fail(self, why: str) -> ModelFileError:
        return corrupt(self._path, why)

    def _take(self, nbytes: int, what: str) -> bytes:
        end = self._at + nbytes
        if end > self._end:
            raise self._fail(f"its header ends inside its {what} (at byte {self._at}; {self._end} may belong to it)")
        taken = self._buffer[self._at : end]
        self._at = end
        return taken

    def _u32(self, what: str) -> int:
        return int.from_bytes(self._take(4, what), "little")

    def _u64(self, what: str) -> int:
        return int.from_bytes(self._take(8, what), "little")

    def _check_magic(self) -> None:
        magic = self._take(4, "magic")
        if magic != _MAGIC:
            raise self._fail(f"it does not start with GGUF but with {magic!r}")
        version = self._u32("version")
        if version not in _VERSIONS:
            raise ModelFileError(
                f"model file {self._path} has GGUF version {version}",
                f"this engine reads versions {_VERSIONS[0]} and {_VERSIONS[1]}, little-endian",
                "convert it with a current converter",
                code="model_unsupported",
            )

    def _check_count(self, count: int, min_bytes: int, what: str, limit: int = _MAX_HEADER_BYTES) -> None:
        """A count that the rest of the header cannot hold is refused before anything is allocated for it."""
        most = min(limit, (self._end - self._at) // min_bytes)
        if count > most:
            raise self._fail(f"it claims {count} {what}, more than the {most} that there is room for")

    def _string(self, what: str, limit: int | None = None) -> str:
        length = self._u64(what)
        if length > self._end - self._at or (limit is not None and length > limit):
            raise self._fail(f"a {what} claims a length of {length} bytes")
        try:
            return self._take(length, what).decode("utf-8")
        except UnicodeDecodeError as error:
            raise self._fail(f"a {what} is not UTF-8") from error

    def _read_metadata(self, count: int) -> dict[str, MetaValue]:
        metadata: dict[str, MetaValue] = {}
        for _ in range(count):
            key = self._string("metadata key", _MAX_KEY_BYTES)
            if key in metadata:
                raise self._fail(f"metadata key {key!r} appears twice")
            metadata[key] = self._value(self._u32("value type"), key)
        return metadata

    def _value(self, kind: int, key: str) -> MetaValue:
        if kind == _STRING:
            return self._string(f"value of {key!r}")
        if kind == _ARRAY:
            return self._array(key)
        if kind not in _SCALARS:
            raise self._fail(f"metadata {key!r} has unknown type {kind}")
        dtype = np.dtype(_SCALARS[kind])
        scalar = np.frombuffer(self._take(dtype.itemsize, f"value of {key!r}"), dtype=dtype)[0]
        value: int | float | bool = scalar.item()
        return value

    def _array(self, key: str) -> list[str] | NDArray[np.generic]:
        kind, count = self._u32(f"array type of {key!r}"), self._u64(f"array length of {key!r}")
        if kind == _STRING:
            return self._string_array(count, key)
        if kind not in _SCALARS:
            raise self._fail(f"metadata {key!r} is an array of unknown or nested type {kind}")
        dtype = np.dtype(_SCALARS[kind])
        self._check_count(count, dtype.itemsize, f"elements in {key!r}")
        return np.frombuffer(self._take(count * dtype.itemsize, f"value of {key!r}"), dtype=dtype)

    def _string_array(self, count: int, key: str) -> list[str]:
        """Vocabularies have 50,000 entries and more: one tight loop instead of a method call for each."""
        self._check_count(count, 8, f"strings in {key!r}", _MAX_STRINGS)
        buffer, at, limit = self._buffer, self._at, self._end
        read_length = struct.Struct("<Q").unpack_from
        strings: list[str] = []
        try:
            for _ in range(count):
                (length,) = read_length(buffer, at)
                at += 8
                end = at + length
                if end > limit:
                    raise self._fail(f"a string in {key!r} claims a length of {length} bytes")
                strings.append(buffer[at:end].decode("utf-8"))
                at = end
        except struct.error as error:
            raise self._fail(f"the file ends inside {key!r}") from error
        except UnicodeDecodeError as error:
            raise self._fail(f"a string in {key!r} is not UTF-8") from error
        self._at = at
        return strings

    def _read_tensors(self, count: int) -> dict[str, TensorInfo]:
        alignment = self._alignment()
        entries = [self._tensor_entry() for _ in range(count)]
        data_start = -(-self._at // alignment) * alignment
        tensors: dict[str, TensorInfo] = {}
        for name, shape, format_id, offset in entries:
            if name in tensors:
                raise self._fail(f"tensor {name!r} appears twice")
            if offset % alignment:
                raise self._fail(f"tensor {name!r} is not aligned to {alignment} bytes")
            tensors[name] = self._place(name, shape, format_id, data_start + offset)
        self._check_apart(tensors.values())
        return tensors

    def _check_apart(self, tensors: Iterable[TensorInfo]) -> None:
        """No byte belongs to two tensors."""
        for before, after in pairwise(sorted(tensors, key=lambda tensor: tensor.offset)):
            if before.offset + before.nbytes > after.offset:
                raise self._fail(f"tensors {before.name!r} and {after.name!r} overlap")

    def _alignment(self) -> int:
        value = self.metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
        if not isinstance(value, int) or not 8 <= value <= _MAX_ALIGNMENT or value & (value - 1):
            raise self._fail(f"general.alignment is {kind_of(value)}, not a power of two from 8 to {_MAX_ALIGNMENT}")
        return value

    def _tensor_entry(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self._string("tensor name", _MAX_KEY_BYTES)
        dims = self._u32(f"dimensions of {name!r}")
        if not 1 <= dims <= _MAX_DIMS:
            raise self._fail(f"tensor {name!r} claims {dims} dimensions")
        extents = [self._u64(f"shape of {name!r}") for _ in range(dims)]
        return name, tuple(reversed(extents)), self._u32(f"type of {name!r}"), self._u64(f"offset of {name!r}")

    def _place(self, name: str, shape: tuple[int, ...], format_id: int, offset: int) -> TensorInfo:
        if format_id not in FORMATS:
            if format_id in FOREIGN_TYPES:
                raise ModelFileError(
                    f"tensor {name!r} of {self._path} is stored as {FOREIGN_TYPES[format_id]}",
                    f"this engine unpacks {', '.join(known.name for known in FORMATS.values())}",
                    "use a file of the same model in one of these types",
                    code="model_unsupported",
                )
            raise self._fail(f"tensor {name!r} has unknown type {format_id}")
        layout = FORMATS[format_id]
        count = value_count(shape)
        if count == 0 or shape[-1] % layout.block_size:
            raise self._fail(f"tensor {name!r} of shape {shape} cannot be {layout.name}")
        nbytes = count // layout.block_size * layout.block_bytes
        if offset + nbytes > self._size:
            raise self._fail(f"tensor {name!r} reaches to byte {offset + nbytes} of {self._size}")
        return TensorInfo(name, shape, layout, offset, nbytes)
