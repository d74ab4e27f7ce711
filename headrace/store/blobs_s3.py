"""Blobs in an S3 bucket, under a prefix, each with its sha256 in its metadata. Knows keys and checksums, not requests.

A fleet needs a prefix of its own: what no record of this fleet refers to is swept away.
"""

import hashlib
import io
import tempfile
from collections.abc import Iterator
from typing import IO, Self, cast

from headrace.contract.errors import BlobDamaged, BlobNotFound, SetupError
from headrace.store.blobs import Blob, Source, check_key, check_prefix, chunks_of, verified
from headrace.store.blobs_bucket import Bucket

_IN_MEMORY = 4 << 20
_PAGE = 1000


class S3Blobs:
    """A `BlobStore` on a bucket."""

    def __init__(self, bucket: Bucket, prefix: str = "") -> None:
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""

    @classmethod
    def open(cls, url: str, endpoint_url: str = "", timeout_s: float = 10.0) -> Self:
        """`s3://bucket/prefix`. Raises SetupError when it is not one, or boto3 is not installed."""
        name, prefix = bucket_and_key(url)
        return cls(Bucket(name, endpoint_url=endpoint_url, timeout_s=timeout_s), prefix)

    def put(self, key: str, source: Source) -> None:
        self._put(key, source, if_absent=False)

    def put_if_absent(self, key: str, source: Source) -> bool:
        return self._put(key, source, if_absent=True)

    def read(self, key: str) -> Iterator[bytes]:
        with self._bucket.opened(self._prefix + check_key(key)) as (found, chunks):
            if "sha256" not in found.metadata:
                raise BlobDamaged(f"The object {found.key} carries no checksum: it is none that was put here.")
            yield from verified(key, chunks, found.size, found.metadata["sha256"])

    def find(self, key: str) -> Blob | None:
        try:
            found = self._bucket.head(self._prefix + check_key(key))
        except BlobNotFound:
            return None
        return Blob(key, found.size, found.modified_at)

    def delete(self, key: str) -> None:
        self._bucket.delete(self._prefix + check_key(key))

    def listing(self, prefix: str = "") -> Iterator[Blob]:
        wanted, after = self._prefix + check_prefix(prefix), ""
        while found := self._bucket.page(wanted, after, _PAGE):
            for item in found:
                yield Blob(item.key.removeprefix(self._prefix), item.size, item.modified_at)
            after = found[-1].key

    def _put(self, key: str, source: Source, *, if_absent: bool) -> bool:
        """S3 wants size and metadata first, so chunks go through a file of this machine."""
        name = self._prefix + check_key(key)
        if isinstance(source, bytes):
            described = {"sha256": hashlib.sha256(source).hexdigest()}
            return self._bucket.put(name, io.BytesIO(source), len(source), described, if_absent=if_absent)
        with tempfile.SpooledTemporaryFile(_IN_MEMORY) as spool:
            digest = hashlib.sha256()
            for chunk in chunks_of(source):
                digest.update(chunk)
                spool.write(chunk)
            size = spool.tell()
            spool.seek(0)
            described = {"sha256": digest.hexdigest()}
            return self._bucket.put(name, cast(IO[bytes], spool), size, described, if_absent=if_absent)


def bucket_and_key(url: str) -> tuple[str, str]:
    """What `s3://bucket/key` names; the key may be empty. Raises SetupError."""
    name, _, key = url.removeprefix("s3://").partition("/")
    if not url.startswith("s3://") or not name:
        raise SetupError(f"{url!r} names no bucket.", next_step="Write s3://bucket/path.")
    return name, key
