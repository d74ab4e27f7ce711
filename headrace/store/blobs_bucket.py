"""One S3 bucket, object by object: heads, ranges, uploads, pages. Knows boto3 and its errors, and no blob's checksum.

boto3 is an extra and is imported when the first bucket is opened; credentials come from its own chain.
"""

import io
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from typing import IO, Any

from headrace.contract.errors import BlobNotFound, BlobsUnavailable, SetupError

_CHUNK = 1 << 20
_ATTEMPTS = 2
_ABSENT = frozenset({"404", "NoSuchKey", "NotFound"})
_PRESENT = "PreconditionFailed"


@dataclass(frozen=True, slots=True)
class Object:
    """`etag` changes with the content; `version` is empty in a bucket without versions."""

    key: str
    size: int
    modified_at: int
    etag: str = ""
    version: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


class Bucket:
    """Safe for threads. Every method raises BlobsUnavailable: no answer in time, no rights, no such bucket.

    `part_bytes` is the largest object sent in one piece, and what a multipart upload holds in memory.
    """

    def __init__(self, name: str, *, endpoint_url: str = "", timeout_s: float = 10.0, part_bytes: int = 16 << 20):
        boto3, config = _extra("boto3"), _extra("botocore.config")
        self._errors = _extra("botocore.exceptions")
        self._name = name
        self._part_bytes = part_bytes
        try:
            self._client: Any = boto3.session.Session().client(
                "s3",
                endpoint_url=endpoint_url or None,
                config=config.Config(
                    connect_timeout=min(timeout_s, 5.0),
                    read_timeout=timeout_s,
                    retries={"total_max_attempts": _ATTEMPTS, "mode": "standard"},
                    # Blobs carry a sha256 of their own, and not every S3 knows the newer checksums.
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                ),
            )
        except (self._errors.BotoCoreError, ValueError) as error:
            raise SetupError(
                f"S3 cannot be used: {str(error).rstrip('.')}.",
                next_step="Check blobs.endpoint_url and boto3's own configuration (AWS_PROFILE, AWS_REGION).",
            ) from error

    def head(self, key: str) -> Object:
        """Raises BlobNotFound."""
        with self._explained(key):
            answer = self._client.head_object(Bucket=self._name, Key=key)
        return _object(key, answer)

    @contextmanager
    def opened(self, key: str, *, start: int = 0, etag: str = "") -> Iterator[tuple[Object, Iterator[bytes]]]:
        """The object from byte `start` on, in chunks; with `etag` only if it is still that content.

        Raises BlobNotFound, also for another content.
        """
        condition = {"Range": f"bytes={start}-"} if start else {}
        condition |= {"IfMatch": etag} if etag else {}
        with self._explained(key):
            answer = self._client.get_object(Bucket=self._name, Key=key, **condition)
        with closing(answer["Body"]) as body:
            yield _object(key, answer), self._chunks(key, body)

    def put(
        self, key: str, body: IO[bytes], size: int, metadata: Mapping[str, str], *, if_absent: bool = False
    ) -> bool:
        """Atomic: one request, or a multipart upload that is completed at the end and aborted on any error.

        False when `if_absent` and there was one.
        """
        target = {"Bucket": self._name, "Key": key}
        condition = {"IfNoneMatch": "*"} if if_absent else {}
        try:
            with self._explained(key):
                if size <= self._part_bytes:
                    self._client.put_object(**target, **condition, Body=body, ContentLength=size, Metadata=metadata)
                else:
                    self._put_in_parts(target, body, metadata, condition)
        except _AlreadyThere:
            return False
        return True

    def delete(self, key: str) -> None:
        with self._explained(key), suppress(BlobNotFound):
            self._client.delete_object(Bucket=self._name, Key=key)

    def page(self, prefix: str, after: str, limit: int) -> tuple[Object, ...]:
        """By key; at most `limit` and at most 1000."""
        with self._explained(prefix):
            answer = self._client.list_objects_v2(
                Bucket=self._name, Prefix=prefix, StartAfter=after, MaxKeys=min(limit, 1000)
            )
        return tuple(
            Object(item["Key"], item["Size"], int(item["LastModified"].timestamp() * 1000), item["ETag"])
            for item in answer.get("Contents", ())
        )

    def _chunks(self, key: str, body: Any) -> Iterator[bytes]:
        with self._explained(key):
            yield from body.iter_chunks(_CHUNK)

    def _put_in_parts(
        self, target: dict[str, str], body: IO[bytes], metadata: Mapping[str, str], condition: dict[str, str]
    ) -> None:
        upload = target | {"UploadId": self._client.create_multipart_upload(**target, Metadata=metadata)["UploadId"]}
        try:
            parts: list[dict[str, Any]] = []
            for chunk in iter(lambda: body.read(self._part_bytes), b""):
                number = len(parts) + 1
                answer = self._client.upload_part(**upload, PartNumber=number, Body=io.BytesIO(chunk))
                parts.append({"PartNumber": number, "ETag": answer["ETag"]})
            self._client.complete_multipart_upload(**upload, **condition, MultipartUpload={"Parts": parts})
        except BaseException:
            with suppress(self._errors.BotoCoreError, self._errors.ClientError):
                self._client.abort_multipart_upload(**upload)  # else its parts stay, unseen and paid for
            raise

    @contextmanager
    def _explained(self, key: str) -> Iterator[None]:
        try:
            yield
        except self._errors.ClientError as error:
            told = error.response.get("Error", {})
            code, status = str(told.get("Code", "")), error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            if code in _ABSENT:
                raise BlobNotFound(f"There is no object {key} in the bucket {self._name}.") from error
            if code == _PRESENT or status == 412:
                raise _AlreadyThere(f"The object {key} in the bucket {self._name} is another one.") from error
            raise self._unavailable(f"{code} {told.get('Message', '')}".strip()) from error
        except (self._errors.BotoCoreError, OSError) as error:
            raise self._unavailable(str(error) or type(error).__name__) from error

    def _unavailable(self, reason: str) -> BlobsUnavailable:
        return BlobsUnavailable(
            f"The bucket {self._name} cannot be used: {reason.rstrip('.')}.",
            next_step="Check its name and rights, the credentials, the region and blobs.endpoint_url.",
        )


class _AlreadyThere(BlobNotFound):
    """A condition of a request did not hold."""


def _extra(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise SetupError("S3 needs boto3.", next_step="Run: pip install 'headrace[s3]'") from error


def _object(key: str, answer: Mapping[str, Any]) -> Object:
    return Object(
        key,
        int(answer["ContentLength"]),
        int(answer["LastModified"].timestamp() * 1000),
        answer.get("ETag", ""),
        answer.get("VersionId", ""),
        answer.get("Metadata", {}),
    )
