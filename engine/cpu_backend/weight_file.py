"""Packed weights in one file that later starts map instead of packing again; knows arrays and bytes, no model.

Workers of one machine that map the same file share its pages, unless they copy it. The first 4,096 bytes are two
lines, written last: a JSON text that names what is behind them, and a checksum of it. A file without them was not
finished, one with another checksum is damaged, and both are made anew: a changed weight would give other tokens, and
nobody would know.
"""

import contextlib
import glob
import hashlib
import json
import logging
import mmap
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np

from engine.cpu_backend.packing import ArrayLayout, Arrays

_HEADER_BYTES: Final = 4096
_ALIGNMENT: Final = 4096
_ABANDONED_S: Final = 3600.0
_log = logging.getLogger(__name__)


def mapped_weights(
    path: Path,
    name: Mapping[str, object],
    layout: Mapping[str, ArrayLayout],
    fill: Callable[[Arrays], None],
    *,
    copied: bool = False,
) -> Arrays:
    """The arrays of the file at `path`, which `fill` makes first where there is none for this `name`.

    Where no file can be written, the arrays are this process's own memory. So are they when they are to be `copied`:
    in large pages, which a file's are not, a step of few rows is 5 to 9 % faster.
    """
    size = _size(layout)
    with contextlib.suppress(OSError):
        _forget_cut_off(path)
        if _is_whole(path, name, size):
            memory = _taken(path, size, copied=copied)
            if _is_sound(memory):
                return _arrays(memory, layout)
            _log.warning("the packed weights in %s are damaged, and are made anew", path)
        _write(path, name, layout, fill)
        return _arrays(_taken(path, size, copied=copied), layout)
    return own_weights(layout, fill)


def own_weights(layout: Mapping[str, ArrayLayout], fill: Callable[[Arrays], None]) -> Arrays:
    """The arrays in memory of this process."""
    arrays = _arrays(_own_memory(_size(layout)), layout)
    fill(arrays)
    return arrays


def _taken(path: Path, size: int, *, copied: bool) -> mmap.mmap:
    with path.open("rb") as file:
        # Copy on write: nobody writes, but compiled code takes read-only arrays for another type.
        return _copy(file, size) if copied else mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY)


def _copy(file: BinaryIO, size: int) -> mmap.mmap:
    memory = _own_memory(size)
    with memoryview(memory) as whole:
        done = 0
        while read := file.readinto(whole[done:]):  # type: ignore[attr-defined]
            done += read
    if done < size:
        raise OSError(f"{file.name} ended after {done} of {size} bytes")
    return memory


def _own_memory(size: int) -> mmap.mmap:
    memory = mmap.mmap(-1, size)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without large pages has small ones
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def _write(
    path: Path, name: Mapping[str, object], layout: Mapping[str, ArrayLayout], fill: Callable[[Arrays], None]
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    size = _size(layout)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, delete=False) as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)  # a full disk says so here, and not as a signal in mid-copy
            # Unmapped when the last array of it goes: an error on its way still holds some.
            memory = mmap.mmap(file.fileno(), size)
            fill(_arrays(memory, layout))
            header = _header(name) + _checksum(memory) + b"\n"
            memory[: len(header)] = header
            memory.flush()
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def _forget_cut_off(path: Path) -> None:
    """Removes what writers left behind that were killed: nobody takes an hour."""
    for file in path.parent.glob(f"{glob.escape(path.name)}?*"):
        with contextlib.suppress(OSError):
            if file.stat().st_mtime < time.time() - _ABANDONED_S:
                file.unlink()


def _is_whole(path: Path, name: Mapping[str, object], size: int) -> bool:
    try:
        if not path.is_file():  # a pipe would be waited for
            return False
        with path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
            return header.startswith(_header(name)) and os.fstat(file.fileno()).st_size == size
    except OSError:
        return False


def _is_sound(memory: mmap.mmap) -> bool:
    """Whether the body is what it was when its header was written."""
    return bytes(memory[:_HEADER_BYTES]).split(b"\n")[1] == _checksum(memory)


def _checksum(memory: mmap.mmap) -> bytes:
    """Of the sums of the body's pages: as fast as memory is read, which a hash of every byte is not."""
    words = np.frombuffer(memory, dtype=np.uint64, offset=_HEADER_BYTES)
    pages = words.reshape(-1, _ALIGNMENT // words.itemsize).sum(axis=1)
    return hashlib.blake2b(pages.tobytes(), digest_size=16).hexdigest().encode()


def _header(name: Mapping[str, object]) -> bytes:
    return json.dumps(name, sort_keys=True).encode() + b"\n"


def _size(layout: Mapping[str, ArrayLayout]) -> int:
    return _HEADER_BYTES + sum(_room(array) for array in layout.values())


def _room(array: ArrayLayout) -> int:
    return -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT


def _arrays(memory: mmap.mmap, layout: Mapping[str, ArrayLayout]) -> Arrays:
    arrays: Arrays = {}
    offset = _HEADER_BYTES
    for name, array in layout.items():
        count = array.nbytes // np.dtype(array.dtype).itemsize
        values = np.frombuffer(memory, dtype=array.dtype, count=count, offset=offset)
        arrays[name] = values.reshape(array.shape)
        offset += _room(array)
    return arrays
