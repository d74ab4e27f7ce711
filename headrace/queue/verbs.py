"""The ten verbs as data: which script, with what arguments, and how to read its answer. Does no I/O.

Both clients, the blocking one of workers and the awaited one of the gateway, send what is made here.
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import orjson

from headrace.contract import events
from headrace.contract.errors import ErrorInfo
from headrace.contract.events import Delta
from headrace.contract.generation import pack_ids
from headrace.contract.job import Job, Lease, State
from headrace.contract.logprobs import pack_logprobs
from headrace.queue import rules
from headrace.queue.base import (
    AcceptReply,
    Append,
    AppendReply,
    ClaimRequest,
    Ending,
    FinishReply,
    Outcome,
    ReapReply,
    ReapRequest,
    RenewReply,
    Timing,
)
from headrace.store import records

T = TypeVar("T")
Arg = bytes | str | int


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One run of a script; `parse` turns the server's answer into the verb's reply."""

    script: str
    args: tuple[Arg, ...]
    parse: Callable[[Any], T]


@dataclass(frozen=True, slots=True)
class Verbs:
    """Makes calls. `offset_ms` is added to the server's clock, for tests that cannot wait."""

    timing: Timing
    offset_ms: int = 0

    def _call(self, script: str, parse: Callable[[Any], T], *args: Arg) -> Call[T]:
        t = self.timing
        head = (self.offset_ms, t.lease_ms, t.journal_ttl_ms, t.result_ttl_ms, t.starvation_ms, t.urgent_ms)
        return Call(script, (*head, *args), parse)

    def accept(self, job: Job, body_hash: str, hold: bool = False) -> Call[AcceptReply]:
        deadline_in = "" if job.deadline_at is None else job.deadline_at
        fresh = replace(job, next_offset=(0,) * job.request.n, deadline_at=None)
        fields = [part for item in records.to_hash(fresh).items() for part in item]
        return self._call("accept", _accept_reply, job.id, body_hash, deadline_in, int(hold), *fields)

    def claim(self, request: ClaimRequest) -> Call[tuple[Job, ...]]:
        """Each call made has a nonce of its own, so sending the same call twice claims once."""
        return self._call(
            "claim",
            _jobs,
            request.worker,
            request.revision,
            request.digest,
            secrets.token_hex(8),
            request.kv_tokens,
            request.capacity,
            request.max_jobs,
            request.held,
            request.schema,
            *request.lanes,
        )

    def renew(self, worker: str, leases: Sequence[Lease]) -> Call[RenewReply]:
        parts = [part for lease in leases for part in _lease(lease)]
        return self._call("renew", _renew_reply, worker, *parts)

    def append(self, write: Append) -> Call[AppendReply]:
        parts = [part for delta in write.deltas for part in _delta(delta)]
        return self._call("append", _append_reply, *_lease(write.lease), *parts)

    def retry(self, lease: Lease, in_ms: int, error: ErrorInfo) -> Call[FinishReply]:
        args = (in_ms, error.code, error.message, records.error_json(error), error.message[: rules.MOST_MESSAGE])
        return self._call("retry", _finish_reply, *_lease(lease), *args)

    def finish(self, lease: Lease, ending: Ending, packed: bytes, ref: str = "") -> Call[FinishReply]:
        """`packed` is the result; with a `ref` it lies there and does not travel."""
        choices = sorted(ending.choices, key=lambda choice: choice.index)
        error = ending.error or ErrorInfo("internal_error", "The attempt ended without saying why.")
        return self._call(
            "finish",
            _finish_reply,
            *_lease(lease),
            ending.state.value,
            ending.usage.cached_tokens,
            records.error_json(error),
            error.code,
            error.message,
            b"" if ref else packed,
            ref,
            *(len(choice.token_ids) for choice in choices),
        )

    def release(self, lease: Lease) -> Call[FinishReply]:
        return self._call("release", _finish_reply, *_lease(lease))

    def cancel(self, job_id: str) -> Call[FinishReply]:
        return self._call("cancel", _finish_reply, job_id)

    def reap(self, request: ReapRequest) -> Call[ReapReply]:
        return self._call("reap", _reap_reply, request.worker, int(request.died), request.limit)


def parse_all(calls: Sequence[Call[T]], raw: Sequence[Any]) -> list[T]:
    """The replies of a pipeline; the first error among its answers is raised."""
    for answer in raw:
        if isinstance(answer, Exception):
            raise answer
    return [call.parse(answer) for call, answer in zip(calls, raw, strict=True)]


def pack(ending: Ending) -> bytes:
    """The result of an ending as it is kept."""
    return records.pack_result(sorted(ending.choices, key=lambda choice: choice.index))


def _lease(lease: Lease) -> tuple[Arg, ...]:
    return lease.job_id, lease.lease_id, lease.epoch


def _delta(delta: Delta) -> tuple[Arg, ...]:
    public = events.to_json(delta)
    del public["seq"]
    body = orjson.dumps(public)
    explained = delta.logprobs or delta.prompt_logprobs
    logprobs = pack_logprobs(delta.logprobs, delta.prompt_logprobs) if explained else b""
    return delta.choice, delta.offset, pack_ids(delta.token_ids), delta.finish_reason or "", logprobs, body


def _accept_reply(raw: Any) -> AcceptReply:
    outcome, job_id, *created_at = raw
    return AcceptReply(Outcome(outcome.decode()), job_id.decode(), *created_at)


def _jobs(raw: Any) -> tuple[Job, ...]:
    return tuple(job for job in map(job_from_flat, raw) if job is not None)


def job_from_flat(raw: Any) -> Job | None:
    """A record from HGETALL, whichever shape client and script give it; None when there is none."""
    fields = raw if isinstance(raw, dict) else dict(zip(raw[::2], raw[1::2], strict=True))
    return records.from_hash(fields) if fields else None


def _renew_reply(raw: Any) -> RenewReply:
    held = tuple(Lease(job_id.decode(), lease_id.decode(), int(epoch)) for job_id, lease_id, epoch in raw[1])
    return RenewReply(held, tuple(job_id.decode() for job_id in raw[2]))


def _append_reply(raw: Any) -> AppendReply:
    outcome = Outcome(raw[0].decode())
    if outcome is Outcome.TERMINAL:
        return AppendReply(outcome, state=State(raw[1].decode()))
    if outcome not in (Outcome.OK, Outcome.GAP):
        return AppendReply(outcome)
    seq, listeners, choice, have, diverged = map(int, raw[1:])
    return AppendReply(outcome, seq, listeners, choice, have, diverged=bool(diverged))


def _finish_reply(raw: Any) -> FinishReply:
    outcome = Outcome(raw[0].decode())
    if outcome is Outcome.GAP:
        return FinishReply(outcome, choice=int(raw[1]), have=int(raw[2]))
    return FinishReply(outcome, State(raw[1].decode()) if len(raw) > 1 else None)


def _reap_reply(raw: Any) -> ReapReply:
    requeued, expired, dead = (tuple(job_id.decode() for job_id in ids) for ids in raw[:3])
    return ReapReply(requeued, expired, dead, bool(raw[3]))
