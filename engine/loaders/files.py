"""Maps model files into memory and reads the small ones beside them; knows no format but JSON.

Everything here is bounded: JSON is refused above a size, and mapping reads nothing by itself. A file that is cut short
while it is mapped ends the process, by a signal that nothing can catch: model files are replaced, never written into.
"""

import hashlib
import json
import math
import mmap
import re
import stat
from pathlib import Path
from typing import Final

from engine.errors import ModelFileError

# Separators of a JSON text, and so its values: Gemma 3's tokenizer has two million. A value takes up to 200 bytes.
_MAX_VALUES: Final = 3 << 20
_BLOCK: Final = 1 << 20
_ESCAPED_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")


def missing(path: Path, why: str) -> ModelFileError:
    """The error for a file that is not there or cannot be read."""
    return ModelFileError(
        f"cannot open model file {path}", why, "check the path and its permissions", code="model_file_missing"
    )


def size_of(path: Path) -> int:
    """Bytes of a plain file. Raises ModelFileError for anything else: a pipe would block, a device never end."""
    try:
        found = path.stat()
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    if not stat.S_ISREG(found.st_mode):
        raise missing(path, "it is no plain file")
    return found.st_size


def is_there(path: Path) -> bool:
    """Whether the path leads to anything. Raises ModelFileError where nobody may look, or no name can be so long."""
    try:
        return path.exists()
    except OSError as error:
        raise _unreadable(path, error) from error


def corrupt(path: Path, why: str) -> ModelFileError:
    """The error for a file that contradicts itself or its neighbours."""
    return ModelFileError(f"damaged model file {path}", why, "download or convert it again")


def map_file(path: Path) -> mmap.mmap:
    """The whole file, read-only. Raises ModelFileError: missing, empty, or no plain file (a pipe would block)."""
    if not size_of(path):  # which cannot be mapped
        raise corrupt(path, "the file is empty")
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def read_bytes(path: Path, max_bytes: int) -> bytes:
    """A plain file of at most `max_bytes`, whole. Raises ModelFileError."""
    size = size_of(path)
    if size > max_bytes:
        raise corrupt(path, f"it has {size} bytes, and at most {max_bytes} are read")
    try:
        with path.open("rb") as file:
            return file.read(size)  # a buffer of that size is made at once, so no more than is there
    except OSError as error:
        raise _unreadable(path, error) from error


def sha256_of(path: Path) -> str:
    """Of a whole plain file, in hexadecimal digits; of one that a system makes up as it is read, of nothing. Raises
    ModelFileError."""
    left, digest = size_of(path), hashlib.sha256()
    try:
        with path.open("rb") as file:
            while left and (block := file.read(min(left, _BLOCK))):
                digest.update(block)
                left -= len(block)
    except OSError as error:
        raise _unreadable(path, error) from error
    return digest.hexdigest()


def read_json(path: Path, max_bytes: int) -> dict[str, object]:
    """A file that holds one JSON object of at most `max_bytes`. Raises ModelFileError."""
    return parse_json(read_bytes(path, max_bytes), path)


def parse_json(raw: bytes, path: Path) -> dict[str, object]:
    """One JSON object in UTF-8; no key twice, for readers disagree on which of two counts. Raises ModelFileError."""
    if sum(map(raw.count, (b",", b"[", b"{"))) > _MAX_VALUES:
        raise corrupt(path, f"it holds more than {_MAX_VALUES} values")
    try:
        value = json.loads(
            raw.decode("utf-8"), object_pairs_hook=_distinct, parse_constant=_finite, parse_float=_finite
        )
        if _ESCAPED_SURROGATE.search(raw):
            json.dumps(value, ensure_ascii=False).encode("utf-8")  # half of a character is none, and no text holds it
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, a key twice, a number or depth beyond reason
        raise corrupt(path, f"it is not proper JSON: {str(error)[:200]}") from error
    if not isinstance(value, dict):
        raise corrupt(path, "it holds no JSON object")
    return value


def _distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("a key appears twice in one object")
    return entries


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"{number[:40]} is no finite number")
    return value


def _unreadable(path: Path, error: OSError | ValueError) -> ModelFileError:
    """ValueError: a path with a zero byte in it."""
    return missing(path, (isinstance(error, OSError) and error.strerror) or "it cannot be read")
