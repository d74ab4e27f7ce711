"""The two parts of a job that may be large, its prompt and its result: which go to the blob store, and where they lie.

Knows sizes and refs. What is small stays in Redis, beside the record.
"""

import re
from dataclasses import dataclass, replace

from headrace.contract.errors import BlobDamaged, BlobNotFound, BlobsUnavailable, HeadraceError
from headrace.contract.generation import FrozenRequest, pack_ids, unpack_ids
from headrace.contract.job import Job, Lease
from headrace.settings import Settings
from headrace.store.blobs import BlobStore, open_blobs, read_all

BLOB = "blob:"
"""A ref that begins so names a blob; any other names a key of Redis."""

ID_BYTES = 4
"""Of one packed token id."""

PROMPTS, RESULTS = "prompts/", "results/"
_KEY = re.compile(r"(?:prompts|results)/(job_[^./]+)(?:\.\d+)?")


@dataclass(frozen=True, slots=True)
class Payloads:
    """What is packed into more than `threshold_bytes` goes to `blobs`; without a store everything stays in Redis.

    Every method raises BlobsUnavailable while the store is away.
    """

    blobs: BlobStore | None = None
    threshold_bytes: int = 200_000

    def is_large(self, packed_bytes: int) -> bool:
        return self.blobs is not None and packed_bytes > self.threshold_bytes

    def shelve_prompt(self, job: Job) -> Job:
        """The job as its record is to keep it: with a `prompt_ref`, durable by then, if its prompt is large; so too the
        prompt of its fallback."""
        job = replace(job, prompt_ref=self._shelve(job.request, f"{PROMPTS}{job.id}") or job.prompt_ref)
        if job.fallback is None:
            return job
        ref = self._shelve(job.fallback.request, f"{PROMPTS}{job.id}.1")
        return replace(job, fallback=replace(job.fallback, prompt_ref=ref))

    def _shelve(self, request: FrozenRequest, key: str) -> str:
        if self.blobs is None or not self.is_large(ID_BYTES * len(request.prompt_ids)):
            return ""
        self.blobs.put(key, pack_ids(request.prompt_ids))
        return BLOB + key

    def fetch_prompt(self, job: Job) -> Job:
        """The job with its prompt ids, wherever they lie. Raises BlobNotFound, BlobDamaged."""
        if not job.prompt_ref:
            return job
        packed = self._load(job.prompt_ref, f"The prompt of {job.id}")
        return replace(job, request=replace(job.request, prompt_ids=unpack_ids(packed)))

    def fetch_prompts(self, job: Job) -> Job:
        """The same with the prompt ids of its fallback, for a job that is to be shelved once more under another id."""
        job, other = self.fetch_prompt(job), job.fallback
        if other is None or not other.prompt_ref:
            return job
        packed = self._load(other.prompt_ref, f"The prompt for the fallback of {job.id}")
        request = replace(other.request, prompt_ids=unpack_ids(packed))
        return replace(job, fallback=replace(other, request=request))

    def drop_prompt(self, job: Job) -> None:
        """Delete a prompt that lies in the blob store, and its fallback's; saying it again is no error."""
        for ref in filter(None, (job.prompt_ref, job.fallback.prompt_ref if job.fallback else "")):
            if self.blobs is None:
                raise BlobsUnavailable(f"The prompt of {job.id} is in a blob store, and this process has none.")
            self.blobs.delete(ref.removeprefix(BLOB))

    def shelve_result(self, lease: Lease, packed: bytes) -> str:
        """Where a large result lies, durable by then; '' for one that is to stay in Redis.

        Each claim of a job has a key of its own, so a worker that has lost its lease overwrites nothing; saying it
        again costs a look.
        """
        if self.blobs is None or not self.is_large(len(packed)):
            return ""
        key = f"{RESULTS}{lease.job_id}.{lease.epoch}"
        if self.blobs.find(key) is None:
            self.blobs.put(key, packed)
        return BLOB + key

    def fetch_result(self, job_id: str, ref: str) -> bytes:
        """What `shelve_result` put. Raises BlobNotFound, BlobDamaged."""
        return self._load(ref, f"The result of {job_id}")

    def _load(self, ref: str, what: str) -> bytes:
        if self.blobs is None:
            raise BlobsUnavailable(f"{what} is in a blob store, and this process has none.")
        try:
            return read_all(self.blobs, ref.removeprefix(BLOB))
        except (BlobNotFound, BlobDamaged) as error:
            raise type(error)(f"{what} is lost: {error.message}", next_step=_next_step(error)) from error


INLINE = Payloads()
"""No blob store: everything stays in Redis."""


def open_payloads(settings: Settings) -> Payloads:
    """As the settings say. Waits for nothing; raises SetupError."""
    return Payloads(open_blobs(settings), settings.blobs.threshold_bytes)


def is_blob(ref: str) -> bool:
    return ref.startswith(BLOB)


def job_of(key: str) -> str | None:
    """The job whose blob this is; None for a key that is none of ours."""
    found = _KEY.fullmatch(key)
    return found.group(1) if found else None


def _next_step(error: HeadraceError) -> str:
    if isinstance(error, BlobNotFound):
        return "All gateways and workers must see one blob store (blobs.url). Submit the work again."
    return "Submit the work again."
