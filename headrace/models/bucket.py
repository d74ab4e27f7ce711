"""A GGUF in a bucket → the models folder. Knows ranges and ETags, not what asks for it."""

import os
from pathlib import Path

from headrace.contract.errors import BlobNotFound, BlobsUnavailable, SetupError
from headrace.models.folder import Pin, Progress, need_gguf, need_space, sha256_of, size_of, slug
from headrace.models.names import InBucket
from headrace.store.blobs_bucket import Bucket, Object

FOLDER = "s3"
_ATTEMPTS = 5


def fetch(source: InBucket, models_dir: Path, progress: Progress, *, endpoint_url: str = "") -> Pin:
    """Download what the key holds now; a download that was cut, even by a kill, goes on where it was.

    Raises SetupError: no such object, no rights, no network, no space, other content than its `sha256` metadata says.
    """
    try:
        bucket = Bucket(source.bucket, endpoint_url=endpoint_url)
        found = bucket.head(source.key)
        path = models_dir / FOLDER / f"{slug(source.name + found.etag)}.gguf"
        path.parent.mkdir(parents=True, exist_ok=True)
        if size_of(path) != found.size or sha256_of(path) != found.metadata.get("sha256"):
            _download(bucket, found, path.with_suffix(".part"), progress)
            os.replace(path.with_suffix(".part"), path)
    except BlobNotFound as error:
        raise SetupError(
            f"There is no {source.name}, or it has just changed.", next_step="Check it, then pull again."
        ) from error
    except BlobsUnavailable as error:
        raise SetupError(error.message, next_step=error.next_step) from error
    return Pin(source.name, source.id, path.relative_to(models_dir).as_posix(), found.size, sha256_of(path), found.etag)


def _download(bucket: Bucket, wanted: Object, part: Path, progress: Progress) -> None:
    need_space(part.parent, wanted.size - (size_of(part) or 0))
    attempts = _ATTEMPTS
    while (have := size_of(part) or 0) < wanted.size:
        try:
            with part.open("ab") as file, bucket.opened(wanted.key, start=have, etag=wanted.etag) as (_, chunks):
                for chunk in chunks:
                    file.write(chunk)
                    progress("fetching", file.tell(), wanted.size)
                file.flush()
                os.fsync(file.fileno())
        except BlobsUnavailable:
            attempts = attempts - 1 if size_of(part) == have else _ATTEMPTS
            if not attempts:
                raise
    _check(part, wanted)


def _check(part: Path, wanted: Object) -> None:
    pinned = wanted.metadata.get("sha256", "")
    damaged = part.stat().st_size != wanted.size or (pinned and sha256_of(part) != pinned)
    if damaged:
        part.unlink()
        raise SetupError(
            f"{wanted.key} arrived damaged: it is not what its size and sha256 say.", next_step="Pull again."
        )
    need_gguf(part, wanted.key)
