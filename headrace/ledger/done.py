"""The mark that a job is done, in the blob store, where it outlives Redis. Knows blobs, not who delivers messages.

    done/<job>           state, usage, error, where the result lies, and the record without its prompt
    done/<job>.result    the result, as Redis would keep it

Both are put only if absent, the result first: whoever finds the mark finds the result, and the first ending stands.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from headrace.contract.errors import BlobDamaged, BlobNotFound
from headrace.contract.job import Job
from headrace.store import records
from headrace.store.blobs import BlobStore, read_all
from headrace.store.ledger_blobs import DONE
from headrace.store.payloads import BLOB

VERSION = 1

_LEFT_OUT = frozenset({"prompt_ids", "fallback", "fallback_prompt"})


@dataclass(frozen=True, slots=True)
class Done:
    """`result` is where it lies, '' for a job without one. `record` has the fields of the record but the prompt."""

    job_id: str
    state: str
    result: str
    record: Mapping[str, str]

    @property
    def job(self) -> Job:
        """The record as it was at the end."""
        fields = {name.encode(): value.encode() for name, value in self.record.items()}
        return records.from_hash({**fields, b"prompt_ids": b"", b"result_ref": self.result.encode()})


class DoneMarks:
    """Every method raises BlobsUnavailable while the store is away."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs

    def has(self, job_id: str) -> bool:
        return self._blobs.find(_key(job_id)) is not None

    def put(self, job: Job, result: bytes | None) -> None:
        """Say that this job has ended. It may have been said: then nothing changes."""
        ref = ""
        if result is not None:
            self._blobs.put_if_absent(_result_key(job.id), result)
            ref = BLOB + _result_key(job.id)
        self._blobs.put_if_absent(_key(job.id), json.dumps(_mark(job, ref), separators=(",", ":")).encode())

    def get(self, job_id: str) -> Done | None:
        """The mark, None without one. Raises BlobDamaged."""
        try:
            data = json.loads(read_all(self._blobs, _key(job_id)))
        except BlobNotFound:
            return None
        try:
            return Done(data["job"], data["state"], data["result"], data["record"])
        except (KeyError, TypeError) as error:
            raise BlobDamaged(f"The mark of {job_id} is none.") from error


def _mark(job: Job, ref: str) -> dict[str, Any]:
    fields = {name: str(value) for name, value in records.to_hash(job).items() if name not in _LEFT_OUT}
    return {
        "headrace": VERSION,
        "job": job.id,
        "state": job.state.value,
        "usage": asdict(job.usage) if job.usage else None,
        "error": asdict(job.error) if job.error else None,
        "result": ref,
        "record": fields,
    }


def _key(job_id: str) -> str:
    return f"{DONE}{job_id}"


def _result_key(job_id: str) -> str:
    return f"{DONE}{job_id}.result"
