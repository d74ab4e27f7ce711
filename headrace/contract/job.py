"""The job: its states, the moves between them, and its record. Knows the fields, not where they are kept."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from headrace.contract.errors import ErrorInfo
from headrace.contract.generation import FrozenRequest, Usage

SCHEMA = 3
"""Raised whenever a field is added: a reader leaves what it does not know, and takes defaults for what it misses.

Where a worker that left a field alone would do the wrong thing, the job says so: see `Job.needs`."""


class State(StrEnum):
    ACCEPTED = "ACCEPTED"
    QUEUED = "QUEUED"
    LEASED = "LEASED"
    RUNNING = "RUNNING"
    RETRY_WAIT = "RETRY_WAIT"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"
    DEAD = "DEAD"


TERMINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED, State.EXPIRED, State.DEAD})
HELD = frozenset({State.LEASED, State.RUNNING})

TRANSITIONS: Mapping[State, frozenset[State]] = {
    State.ACCEPTED: frozenset({State.QUEUED}) | TERMINAL,
    State.QUEUED: frozenset({State.LEASED}) | TERMINAL,
    State.LEASED: frozenset({State.RUNNING, State.QUEUED, State.RETRY_WAIT}) | TERMINAL,
    State.RUNNING: frozenset({State.RUNNING, State.QUEUED, State.RETRY_WAIT}) | TERMINAL,
    State.RETRY_WAIT: frozenset({State.QUEUED}) | TERMINAL,
    **dict.fromkeys(TERMINAL, frozenset[State]()),
}


class JobClass(StrEnum):
    """How urgent; the claim empties them in this order."""

    INTERACTIVE = "interactive"
    STANDARD = "standard"
    BATCH = "batch"
    BACKGROUND = "background"


class Kind(StrEnum):
    CHAT = "chat"
    COMPLETION = "completion"
    EMBEDDING = "embedding"


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write to a job: void as soon as the record shows another epoch or lease id."""

    job_id: str
    lease_id: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Past:
    """One attempt that did not bring a job to its end: who had it, what went wrong, when, and how far it was.

    `code` is the error's own, or `worker_died` or `lease_expired`. `offset` counts journaled tokens over all choices.
    """

    attempt: int
    worker: str
    code: str
    message: str
    at: int
    offset: int


@dataclass(frozen=True, slots=True)
class Fallback:
    """The same request made for another model, frozen at submit like the first: what is run when all retries of the
    first model have failed and no token of it was journaled.

    With a `prompt_ref` its prompt lies in the blob store, as a job's may.
    """

    model: str
    lane: str
    revision: str
    request: FrozenRequest
    prompt_ref: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """The record. Times are integer milliseconds of the server's clock; None means not yet.

    With a `prompt_ref` the prompt lies in the blob store, and `request.prompt_ids` is empty until it is fetched.
    `digest` is that of its last claim, `digests` those under which attempts began, each once and the first in front.
    `history` keeps the last attempts that went wrong, oldest first. `place` is where it stands in its lane.
    `redrive_of` and `replay_of` name the job that this one does again, `redriven_as` the one that does a dead job
    again; no worker of another digest than `digest_wanted`, where there is one, may claim it. `fallback_of` names the
    model that it was first made for, once that one was given up.
    """

    id: str
    model: str
    lane: str
    revision: str
    job_class: JobClass
    kind: Kind
    request: FrozenRequest
    tenant: str = "default"
    schema: int = SCHEMA
    state: State = State.ACCEPTED
    epoch: int = 0
    lease_id: str = ""
    owner: str = ""
    digest: str = ""
    digests: tuple[str, ...] = ()
    attempt: int = 0
    retries: int = 0
    deaths: int = 0
    deaths_total: int = 0
    death_offset: int = 0
    seq: int = 0
    next_offset: tuple[int, ...] = (0,)
    kv_tokens: int = 0
    place: int = 0
    created_at: int | None = None
    queued_at: int | None = None
    leased_at: int | None = None
    first_token_at: int | None = None
    ended_at: int | None = None
    deadline_at: int | None = None
    error: ErrorInfo | None = None
    history: tuple[Past, ...] = ()
    usage: Usage | None = None
    fallback: Fallback | None = None
    fallback_of: str = ""
    prompt_ref: str = ""
    result_ref: str = ""
    idem_key: str = ""
    redrive_of: str = ""
    redriven_as: str = ""
    replay_of: str = ""
    digest_wanted: str = ""
    ledger_receipt: str = ""
    traceparent: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def lease(self) -> Lease:
        return Lease(self.id, self.lease_id, self.epoch)

    @property
    def needs(self) -> int:
        """The lowest schema of a worker that can run it. An older one is given the job by no claim: it would take an
        empty prompt for the prompt, leave out what was asked for, or compute with other numerics than wanted."""
        if self.digest_wanted:
            return 3
        request = self.request
        explained = request.logprobs is not None or request.prompt_logprobs is not None
        return 2 if self.prompt_ref or explained else 1

    @property
    def ended(self) -> bool:
        return self.state in TERMINAL


def lane_of(model: str, release: str = "stable") -> str:
    """The queue of one release of one model: `<model>@<release>`."""
    return f"{model}@{release}"
