"""Maps model files into memory and reads the small ones beside them; knows no format but JSON.

Everything here is bounded: JSON is refused above a size, and mapping reads nothing by itself.
"""

import hashlib
import json
import mmap
import stat
from pathlib import Path

from engine.errors import ModelFileError


def missing(path: Path, why: str) -> ModelFileError:
    """The error for a file that is not there or cannot be read."""
    return ModelFileError(
        f"cannot open model file {path}", why, "check the path and its permissions", code="model_file_missing"
    )


def corrupt(path: Path, why: str) -> ModelFileError:
    """The error for a file that contradicts itself or its neighbours."""
    return ModelFileError(f"damaged model file {path}", why, "download or convert it again")


def map_file(path: Path) -> mmap.mmap:
    """The whole file, read-only. Raises ModelFileError: missing, empty, or no plain file (a pipe would block)."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise missing(path, "it is no plain file")
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise missing(path, error.strerror or "it cannot be read") from error
    except ValueError as error:  # mmap refuses an empty file
        raise corrupt(path, "the file is empty") from error


def read_bytes(path: Path, max_bytes: int) -> bytes:
    """A plain file of at most `max_bytes`, whole. Raises ModelFileError."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise missing(path, "it is no plain file")
        if found.st_size > max_bytes:
            raise corrupt(path, f"it has {found.st_size} bytes, and at most {max_bytes} are read")
        with path.open("rb") as file:
            return file.read(found.st_size)  # a buffer of that size is made at once, so no more than is there
    except OSError as error:
        raise missing(path, error.strerror or "it cannot be read") from error


def sha256_of(path: Path) -> str:
    """Of a whole file, in hexadecimal digits. Raises ModelFileError."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise missing(path, error.strerror or "it cannot be read") from error


def read_json(path: Path, max_bytes: int) -> dict[str, object]:
    """A file that holds one JSON object of at most `max_bytes`. Raises ModelFileError."""
    return parse_json(read_bytes(path, max_bytes), path)


def parse_json(raw: bytes, path: Path) -> dict[str, object]:
    """One JSON object in UTF-8; no key twice, for readers disagree on which of two counts. Raises ModelFileError."""
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=_distinct)
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
