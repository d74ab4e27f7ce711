"""What became of a round, judged by what the store holds and what customers saw. Knows no process and kills nothing.

`judge` is pure: a snapshot of the store, what was ordered and what was seen go in, faults come out. Its own tests show
it each fault that it is there for.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.contract.events import TERMINAL_TYPES, Delta, Event, Resumed
from headrace.contract.generation import Choice
from headrace.contract.job import Job, State
from tests.chaos.orders import SUCCESS, Answer

TERMINAL_EVENTS: Mapping[State, str] = {
    State.SUCCEEDED: "completed",
    State.FAILED: "failed",
    State.DEAD: "failed",
    State.CANCELLED: "cancelled",
    State.EXPIRED: "expired",
}
EMPTY = ("hr:leases", "hr:delay", "hr:deadlines", "hr:accepted")
"""Sorted sets in which a job that has ended has no place; so are lanes, and `hr:held:` of every worker."""

OWNED = frozenset(
    f"hr:{name}"
    for name in (
        "leases",
        "delay",
        "deadlines",
        "accepted",
        "workers",
        "fleet",
        "outbox",
        "reap",
        "cards",
        "tokenizers",
    )
) | {"maintenance", "unacked", "unacked_index"}
"""The last three are Celery's: sweeps that wait for the task role, and those it has taken and not yet done."""

OWNED_KINDS = ("hr:card:", "hr:tokenizer:", "hr:jobs:", "hr:dlq:", "hr:lane:", "hr:held:", "_kombu.")
"""Beginnings of keys that stay because somebody removes what is in them."""

DEAD_KINDS = ("hr:job:", "hr:ev:")
"""Of a dead job these stay until it is purged or redriven."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """An order and what its customer saw. `job_id` is empty where nobody ever answered. `seen` are the deltas of a
    stream, None for somebody who only asked for the result; `trouble` is what went wrong on their side."""

    job_id: str
    answers: tuple[Answer, ...]
    prompt_tokens: int
    may_end: frozenset[State] = SUCCESS
    seen: tuple[Delta, ...] | None = None
    trouble: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Kept:
    """One job as the store has it."""

    job: Job
    journal: tuple[Event, ...]
    result: tuple[Choice, ...] | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The store when everything has ended: all jobs, who stands in which set, each key's TTL in milliseconds (-1 for
    none), and what living workers say of themselves by name."""

    jobs: Mapping[str, Kept]
    members: Mapping[str, tuple[str, ...]]
    ttls: Mapping[str, int]
    beats: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Fault:
    kind: str
    where: str
    what: str
    tokens: int = 0

    def __str__(self) -> str:
        return f"{self.kind}: {self.where}: {self.what}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """`resumed` counts the jobs that another attempt went on with."""

    jobs: int
    tokens: int
    resumed: int
    faults: tuple[Fault, ...]

    def count(self, *kinds: str) -> int:
        """Faults of these kinds, tokens of them where tokens are what is wrong."""
        return sum(max(1, fault.tokens) for fault in self.faults if fault.kind in kinds)


def judge(receipts: Sequence[Receipt], snapshot: Snapshot) -> Verdict:
    """Every order once, exactly; and nothing left over."""
    faults: list[Fault] = []
    accepted = Counter(receipt.job_id for receipt in receipts if receipt.job_id)
    for receipt in receipts:
        faults += [Fault("client", receipt.job_id or "(no answer)", trouble) for trouble in receipt.trouble]
        if receipt.job_id:
            faults += _of_receipt(receipt, snapshot.jobs.get(receipt.job_id))
    faults += [Fault("job twice", job_id, f"{count} orders got it") for job_id, count in accepted.items() if count > 1]
    for job_id, kept in snapshot.jobs.items():
        if job_id not in accepted:
            faults.append(Fault("job twice", job_id, f"{kept.job.state} that nobody was told of"))
            faults += _of_end(kept)
    faults += _left_over(snapshot)
    events = [kept.journal for kept in snapshot.jobs.values()]
    return Verdict(
        jobs=len(snapshot.jobs),
        tokens=sum(len(event.token_ids) for journal in events for event in journal if isinstance(event, Delta)),
        resumed=sum(any(isinstance(event, Resumed) for event in journal) for journal in events),
        faults=tuple(faults),
    )


def _of_receipt(receipt: Receipt, kept: Kept | None) -> list[Fault]:
    if kept is None:
        return [Fault("lost job", receipt.job_id, "accepted, and there is no record")]
    job, faults = kept.job, _of_end(kept)
    if job.state not in receipt.may_end:
        why = f" ({job.error.code}: {job.error.message})" if job.error else ""
        faults.append(Fault("lost job", job.id, f"ended as {job.state}{why}"))
    whole = job.state is State.SUCCEEDED
    faults += _of_tokens(f"journal of {job.id}", kept.journal, receipt.answers, whole=whole)
    if receipt.seen is not None:
        faults += _of_tokens(f"stream of {job.id}", receipt.seen, receipt.answers, whole=whole)
    if whole:
        faults += _of_result(job.id, kept.result, receipt.answers)
    faults += _of_usage(receipt, kept)
    return faults


def _of_end(kept: Kept) -> list[Fault]:
    """One end, the last event, which is the record's; and a journal without a gap."""
    job, faults = kept.job, []
    ends = [event.type for event in kept.journal if event.type in TERMINAL_TYPES]
    if not job.ended or not ends:
        return [Fault("lost job", job.id, f"is {job.state}, its journal ends with {ends or 'no end'}")]
    if len(ends) > 1:
        faults.append(Fault("ended twice", job.id, str(ends)))
    if kept.journal[-1].type != TERMINAL_EVENTS[job.state]:
        faults.append(Fault("ended twice", job.id, f"{job.state}, and the last event is {kept.journal[-1].type}"))
    seqs = [event.seq for event in kept.journal]
    if seqs != list(range(1, len(seqs) + 1)) or job.seq != len(seqs):
        faults.append(Fault("seq", job.id, f"{seqs}, and the record says {job.seq}"))
    first = [event.type for event in kept.journal[:1]]
    if first != ["accepted"] or sum(event.type in ("accepted", "started") for event in kept.journal) > 2:
        faults.append(Fault("seq", job.id, f"begins with {[event.type for event in kept.journal[:3]]}"))
    return faults


def _of_tokens(where: str, events: Iterable[Event], answers: Sequence[Answer], *, whole: bool) -> list[Fault]:
    """Each choice's deltas, joined, against its answer: all of it, or the beginning of it."""
    faults: list[Fault] = []
    have = [0] * len(answers)
    reasons: list[str | None] = [None] * len(answers)
    for event in events:
        if not isinstance(event, Delta):
            continue
        place = f"{where}, choice {event.choice}"
        if event.choice >= len(answers):
            faults.append(Fault("different", place, "nobody asked for it", len(event.token_ids)))
            continue
        if event.offset > have[event.choice]:
            gap = event.offset - have[event.choice]
            faults.append(Fault("missing", place, f"{gap} tokens before offset {event.offset}", gap))
        elif event.offset < have[event.choice]:
            again = min(have[event.choice] - event.offset, len(event.token_ids))
            faults.append(Fault("repeated", place, f"{again} tokens from offset {event.offset}", again))
        faults += _of_delta(place, event, answers[event.choice])
        have[event.choice] = max(have[event.choice], event.offset + len(event.token_ids))
        reasons[event.choice] = event.finish_reason or reasons[event.choice]
    for choice, answer in enumerate(answers):
        if whole and have[choice] < len(answer.ids):
            short = len(answer.ids) - have[choice]
            faults.append(Fault("missing", f"{where}, choice {choice}", f"the last {short} tokens", short))
        if whole and reasons[choice] != answer.finish_reason:
            faults.append(
                Fault("finish reason", f"{where}, choice {choice}", f"{reasons[choice]}, not {answer.finish_reason}")
            )
    return faults


def _of_delta(place: str, delta: Delta, answer: Answer) -> list[Fault]:
    end = delta.offset + len(delta.token_ids)
    wanted = answer.ids[delta.offset : end]
    differ = abs(len(delta.token_ids) - len(wanted)) + sum(
        a != b for a, b in zip(delta.token_ids, wanted, strict=False)
    )
    faults = []
    if differ:
        faults.append(
            Fault("different", place, f"at {delta.offset}: {delta.token_ids[:8]}…, not {wanted[:8]}…", differ)
        )
    if tuple(delta.logprobs) != answer.logprobs[delta.offset : end]:
        faults.append(Fault("different", place, f"log probabilities at {delta.offset}"))
    return faults


def _of_result(job_id: str, result: tuple[Choice, ...] | None, answers: Sequence[Answer]) -> list[Fault]:
    if result is None:
        return [Fault("result", job_id, "is not there")]
    found = [Answer(choice.token_ids, choice.finish_reason, choice.logprobs) for choice in result]
    return [] if found == list(answers) else [Fault("result", job_id, "is not what the undisturbed run gives")]


def _of_usage(receipt: Receipt, kept: Kept) -> list[Fault]:
    journaled = sum(len(event.token_ids) for event in kept.journal if isinstance(event, Delta))
    usage, job = kept.job.usage, kept.job
    said = (usage.prompt_tokens, usage.completion_tokens) if usage else None
    if said == (receipt.prompt_tokens, journaled):
        return []
    return [Fault("usage", job.id, f"says {said}, and {receipt.prompt_tokens} and {journaled} are right")]


def _left_over(snapshot: Snapshot) -> list[Fault]:
    faults = [
        Fault("leftover", key, f"{len(members)} in it: {members[:3]}")
        for key, members in snapshot.members.items()
        if members and (key in EMPTY or key.startswith(("hr:held:", "hr:lane:")))
    ]
    faults += [Fault("leaked key", key, "has no TTL and no owner") for key in _unowned(snapshot)]
    for worker, metrics in snapshot.beats.items():
        if metrics["held"] or metrics["pages"]:
            faults.append(Fault("leftover", worker, f"holds {metrics['held']} jobs and {metrics['pages']} KV pages"))
        if metrics["diverged"]:
            faults.append(Fault("different", worker, f"{metrics['diverged']} appends were not what the journal has"))
    return faults


def _unowned(snapshot: Snapshot) -> list[str]:
    dead = {job_id for job_id, kept in snapshot.jobs.items() if kept.job.state is State.DEAD}

    def owned(key: str) -> bool:
        if key in OWNED or key.startswith(OWNED_KINDS):
            return True
        return key.startswith(DEAD_KINDS) and key.rpartition(":")[2] in dead

    return [key for key, ttl in snapshot.ttls.items() if ttl < 0 and not owned(key)]
