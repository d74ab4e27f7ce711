"""Bytes under a key, too large for Redis: the protocol, its keys, its checksums, and which store the settings mean.

Knows no job and no network. Stores are blocking; an event loop reaches them through `AsyncPayloads`.
"""

import hashlib
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from headrace.contract.errors import BlobDamaged, BlobsUnavailable, InvalidRequest, SetupError
from headrace.settings import Settings

LONGEST_KEY = 512
READ_S = 20.0
"""How long a whole blob may take: a store that answers, but a few bytes at a time, is as good as away."""

_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")
_PREFIX = re.compile(r"([A-Za-z0-9_][A-Za-z0-9._-]*/)*([A-Za-z0-9_][A-Za-z0-9._-]*)?")

Source = bytes | Iterable[bytes]
"""What is put: all of it, or chunks that are never held in memory together."""


@dataclass(frozen=True, slots=True)
class Blob:
    """What a store says of one blob: bytes, and when it was put in milliseconds of the store's clock."""

    key: str
    size: int
    modified_at: int


class BlobStore(Protocol):
    """A blob appears whole or not at all, and is never changed, only replaced or deleted.

    Every method raises BlobsUnavailable when the store cannot be reached or refuses, after a bounded wait.
    """

    def put(self, key: str, source: Source) -> None:
        """Durable when it returns; replaces what was there. What `source` raises passes, and then nothing was put."""
        ...

    def put_if_absent(self, key: str, source: Source) -> bool:
        """The same, unless there is a blob of that key: then False. Of several at once, one is told True."""
        ...

    def read(self, key: str) -> Iterator[bytes]:
        """Its chunks. BlobNotFound comes with the first one; BlobDamaged before the last one at the latest, so what
        was read to the end is what was put."""
        ...

    def find(self, key: str) -> Blob | None: ...

    def delete(self, key: str) -> None:
        """Also when there is none."""
        ...

    def listing(self, prefix: str = "") -> Iterator[Blob]:
        """Blobs whose key begins with `prefix`, by key, looked up as they are asked for. What is put or deleted
        meanwhile may be in it or not."""
        ...


def open_blobs(settings: Settings) -> BlobStore:
    """The store that `blobs.url` names. Waits for nothing. Raises SetupError for what is not a store's URL, and where
    the extra `s3` is missing."""
    url, given = settings.blobs.url, urlsplit(settings.blobs.url)
    if url.startswith("s3://"):
        from headrace.store.blobs_s3 import S3Blobs

        return S3Blobs.open(url, settings.blobs.endpoint_url, settings.blobs.timeout_s)
    from headrace.store.blobs_folder import FolderBlobs

    if not url:
        return FolderBlobs(settings.paths.data_dir / "blobs")
    if "://" not in url:
        return FolderBlobs(Path(url).expanduser())
    if given.scheme == "file" and not given.netloc and given.path not in ("", "/"):
        return FolderBlobs(Path(unquote(given.path)))
    raise SetupError(
        f"{url!r} is not the URL of a blob store.",
        next_step="Give blobs.url a path, file:///path or s3://bucket/prefix; empty means a folder in paths.data_dir.",
        param="blobs.url",
    )


def read_all(blobs: BlobStore, key: str, limit_s: float = READ_S) -> bytes:
    """A whole blob, for what is known to fit into memory. Raises like `BlobStore.read`, and BlobsUnavailable when all
    of it takes longer than `limit_s`."""
    give_up_at = time.monotonic() + limit_s
    chunks = []
    for chunk in blobs.read(key):
        chunks.append(chunk)
        if time.monotonic() > give_up_at:
            raise BlobsUnavailable(
                f"The blob {key} could not be read within {limit_s:g} s.", next_step="Look at the disk or the bucket."
            )
    return b"".join(chunks)


def check_key(key: str) -> str:
    """The key, if it is one: segments of letters, digits and . _ - with single slashes between, at most 512 long.

    Raises InvalidRequest otherwise: nothing that climbs out of a folder or hides in it ever reaches a store.
    """
    if len(key) > LONGEST_KEY or not all(_SEGMENT.fullmatch(segment) for segment in key.split("/")):
        raise InvalidRequest(f"{key[:80]!r} cannot be the key of a blob.")
    return key


def check_prefix(prefix: str) -> str:
    """The beginning of a key, if it is one. Raises InvalidRequest otherwise."""
    if len(prefix) > LONGEST_KEY or not _PREFIX.fullmatch(prefix):
        raise InvalidRequest(f"{prefix[:80]!r} cannot be the beginning of a blob's key.")
    return prefix


def chunks_of(source: Source) -> Iterable[bytes]:
    return (source,) if isinstance(source, bytes) else source


def verified(key: str, chunks: Iterable[bytes], size: int, sha256: str) -> Iterator[bytes]:
    """The chunks, one behind: the last goes out when all of them have the size and checksum that were put."""
    digest, count, held = hashlib.sha256(), 0, b""
    for chunk in chunks:
        if held:
            yield held
        digest.update(chunk)
        count += len(chunk)
        held = chunk
        if count > size:
            break  # whatever else follows, it is not what was put
    if count != size or digest.hexdigest() != sha256:
        raise BlobDamaged(
            f"The blob {key} is damaged: {count} bytes or more with sha256 {digest.hexdigest()[:12]}…, where {size}"
            f" with {sha256[:12]}… were put.",
            next_step="Look at the disk or the bucket; what it held is lost.",
        )
    if held:
        yield held
