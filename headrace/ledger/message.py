"""The message of one job: all that is needed to run it in a Redis that has never heard of it. Knows no broker.

    {"headrace": 1, "job": "job_…", "needs": 1, "deadline_at": null, "body_hash": "…", "record": {…}, "packed": {…}}
    {"headrace": 1, "job": "job_…", "needs": 1, "ref": "ledger/job_…"}     too large: that one lies in the blob store

`record` and `packed` (base64) are the fields of the record; only what a client asked for is read of them. A deadline is
told by Redis's clock on both sides: no host's is trusted, and a new server's is the best there is. `job` and `needs`
will be understood by every version.
"""

import base64
import json
import time
from dataclasses import dataclass, replace
from typing import Any

from headrace.contract.errors import BlobDamaged, BlobNotFound, MessageUnreadable
from headrace.contract.ids import is_job_id
from headrace.contract.job import SCHEMA, Job, State
from headrace.ledger.asked import LAST_MS, MAX_INT32, job_from, text, whole
from headrace.store import records
from headrace.store.blobs import BlobStore, read_all
from headrace.store.ledger_blobs import CLAIM_CHECKS

VERSION = 1
LONGEST = 200_000
"""Bytes of a message. SQS took 256 KiB until 2025; a claim check costs one more look."""


@dataclass(frozen=True, slots=True)
class Message:
    """`newer` says that only a later version than this one can run the job. Without a `job` all of it lies at `ref`.

    `deadline_at` is milliseconds of the store's clock."""

    job_id: str
    newer: bool = False
    ref: str = ""
    job: Job | None = None
    deadline_at: int | None = None
    body_hash: str = ""

    def to_adopt(self, now_ms: int) -> Job:
        """The job as the queue takes a new one, its deadline counted from now."""
        assert self.job is not None
        left = None if self.deadline_at is None else max(1, self.deadline_at - now_ms)
        return replace(self.job, deadline_at=left)


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


def write(job: Job, *, body_hash: str = "", deadline_at: int | None = None) -> bytes:
    """The whole message of a job that has not begun, its prompt at hand; its own `deadline_at` is left out. A fallback
    whose prompt lies elsewhere is left out, too: the job is to need nothing but its message."""
    fallback = replace(job.fallback, prompt_ref="") if job.fallback and job.fallback.request.prompt_ids else None
    fresh = replace(
        job, state=State.ACCEPTED, prompt_ref="", fallback=fallback, deadline_at=None, created_at=None, seq=0
    )
    fields = records.to_hash(fresh)
    return _dumps(
        {
            "headrace": VERSION,
            "job": job.id,
            "needs": job.needs,
            "deadline_at": deadline_at,
            "body_hash": body_hash,
            "record": {name: value for name, value in fields.items() if not isinstance(value, bytes)},
            "packed": {
                name: base64.b64encode(value).decode() for name, value in fields.items() if isinstance(value, bytes)
            },
        }
    )


def shelve(blobs: BlobStore, job: Job, body: bytes) -> bytes:
    """The body to be published: itself, or a claim check on it, which is durable by then. Raises BlobsUnavailable."""
    if len(body) <= LONGEST:
        return body
    key = claim_check_key(job.id)
    blobs.put(key, body)
    return _dumps({"headrace": VERSION, "job": job.id, "needs": job.needs, "ref": key})


def claim_check_key(job_id: str) -> str:
    return f"{CLAIM_CHECKS}{job_id}"


def read(body: bytes) -> Message:
    """Raises MessageUnreadable for what is no message of ours, whatever it is."""
    try:
        data = json.loads(body)
        job_id = text(data["job"], "job")
        if not is_job_id(job_id):
            raise ValueError("its id is none of a job")
        version, needs = (whole(data[name], name, 1, MAX_INT32) for name in ("headrace", "needs"))
        if version > VERSION or needs > SCHEMA:
            return Message(job_id, newer=True)
        if "ref" in data:
            if data["ref"] != claim_check_key(job_id):
                raise ValueError("its claim check is none of this job")
            return Message(job_id, ref=data["ref"])
        job, at = job_from(data["record"], data["packed"]), data["deadline_at"]
        if job.id != job_id:
            raise ValueError(f"it holds {job.id[:80]!r}")
        deadline_at = None if at is None else whole(at, "deadline_at", 0, LAST_MS)
        return Message(job_id, False, "", job, deadline_at, text(data["body_hash"], "body_hash"))
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        reason = f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
        raise MessageUnreadable(f"A message of {len(body)} bytes is not a job: {reason[:200]}.") from error


def fetch(blobs: BlobStore, message: Message) -> Message:
    """The message with its job, wherever that lies. Raises MessageUnreadable also when its blob is gone or damaged, and
    BlobsUnavailable."""
    if message.job is not None:
        return message
    try:
        fetched = read(read_all(blobs, message.ref))
    except (BlobNotFound, BlobDamaged) as error:
        raise MessageUnreadable(f"The claim check of {message.job_id} cannot be redeemed: {error.message}") from error
    if fetched.job_id != message.job_id or fetched.job is None:
        raise MessageUnreadable(f"The claim check of {message.job_id} is none of it.")
    return fetched


def _dumps(value: Any) -> bytes:
    """ASCII, so that no broker objects to a character."""
    return json.dumps(value, separators=(",", ":")).encode()
