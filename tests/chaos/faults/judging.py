"""Whether anything was lost, repeated or different: from what clients saw, and from journals and results at the end.

The truth is the fake engine's: the token of a prompt, seed, choice and offset. A client's stream is judged by (choice,
offset) and never by `seq`, which a store that lost its tail gives out again; the journal is judged by `seq` as well.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import redis

from headrace.contract.errors import JobNotFound
from headrace.contract.events import TERMINAL_TYPES, Delta, Event
from headrace.contract.generation import Sampling
from headrace.contract.job import State
from headrace.queue.verbs import job_from_flat
from headrace.store import keys
from headrace.store.journal import Journal
from tests.chaos.faults.load import GONE, Answer, Asked, Load
from workers.inference.fake_engine import token_at
from workers.inference.messages import AddRequest


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a round may show. `forgets`: Redis was made to lose its tail, so jobs that it had just accepted may be gone.

    `answer_s` is the longest that any request may take, `on_s` the longest until every stream goes on.
    """

    forgets: bool
    answer_s: float
    on_s: float


@dataclass(slots=True)
class Tally:
    """The figures of one round. `forgotten` jobs were lost with Redis' tail and their clients told so."""

    jobs: int = 0
    tokens: int = 0
    lost: int = 0
    repeated: int = 0
    different: int = 0
    forgotten: int = 0
    refused: int = 0
    resumed: int = 0
    on_s: float = 0.0
    slowest_s: float = 0.0
    faults: list[str] = field(default_factory=list)


def expected(asked: Asked) -> tuple[int, ...]:
    request = AddRequest("", asked.prompt, Sampling(seed=asked.seed), 0, asked.max_tokens)
    return tuple(token_at(request, offset) for offset in range(asked.max_tokens))


def judge(load: Load, client: redis.Redis, bounds: Bounds, healed_at: float) -> Tally:
    """After the last client has heard its last word."""
    tally = Tally(jobs=sum(asked.accepted for asked in load.asked))
    journal = Journal(client)
    for asked in load.asked:
        tally.faults += [f"{asked.job_id or asked.key}: {fault}" for fault in asked.faults]
        if not asked.accepted:
            tally.faults.append(f"{asked.key} was never accepted")
            continue
        truth = expected(asked)
        _judge_client(tally, asked, truth, bounds)
        _judge_record(tally, asked, truth, client, journal, bounds)
    _judge_answers(tally, load.answers, bounds)
    _judge_remains(tally, client)
    tally.on_s = went_on(load.asked, healed_at)
    if tally.on_s > bounds.on_s:
        tally.faults.append(f"a stream went on only {tally.on_s:.1f} s after Redis was back")
    return tally


def went_on(asked: Iterable[Asked], healed_at: float) -> float:
    """Seconds from the end of the trouble to the next token of the last stream that had some left."""
    waits = [0.0]
    for one in asked:
        told = [at for at, event in one.events if event["type"] == "delta"]
        if one.long and told and told[0] < healed_at <= told[-1]:
            waits.append(next(at for at in told if at >= healed_at) - healed_at)
    return max(waits)


def _judge_client(tally: Tally, asked: Asked, truth: tuple[int, ...], bounds: Bounds) -> None:
    seen, ends = 0, 0
    for _, event in asked.events:
        if event["type"] == "delta":
            seen = _compare(tally, f"{asked.job_id} as its client saw it", event, seen, truth)
            ends += event["finish_reason"] is not None
    tally.tokens += seen
    tally.resumed += any(event["type"] == "resumed" for _, event in asked.events)
    if not asked.over:
        tally.faults.append(f"{asked.job_id}: its client was left waiting at {seen}")
    elif asked.over in GONE:
        if not bounds.forgets:
            tally.lost += 1
            tally.faults.append(f"{asked.job_id} was accepted, and its client was told {asked.over}")
    elif asked.over != "completed":
        tally.lost += 1
        tally.faults.append(f"{asked.job_id} ended as {asked.over}: {asked.events[-1][1]}")
    elif seen != asked.max_tokens or ends != 1:
        tally.lost += asked.max_tokens - seen
        tally.faults.append(f"{asked.job_id}: its client saw {seen} of {asked.max_tokens} tokens and {ends} ends")


def _compare(tally: Tally, where: str, delta: dict[str, Any], due: int, truth: tuple[int, ...]) -> int:
    """One delta against the offset that is due and against the truth; the offset that is due next."""
    offset: int = delta["offset"]
    ids: list[int] = delta["token_ids"]
    if offset < due:
        tally.repeated += min(len(ids), due - offset)
        tally.faults.append(f"{where}: offset {offset} again, {due} was due")
    elif offset > due:
        tally.lost += offset - due
        tally.faults.append(f"{where}: offset {offset}, {due} was due")
    right = truth[offset : offset + len(ids)]
    wrong = sum(a != b for a, b in zip(ids, right, strict=False)) + max(0, len(ids) - len(right))
    if wrong:
        tally.different += wrong
        tally.faults.append(f"{where}: {wrong} tokens differ from offset {offset} on")
    return max(due, offset + len(ids))


def _judge_record(
    tally: Tally,
    asked: Asked,
    truth: tuple[int, ...],
    client: redis.Redis,
    journal: Journal,
    bounds: Bounds,
) -> None:
    job = job_from_flat(client.hgetall(keys.job(asked.job_id)))
    if job is None:
        tally.forgotten += 1
        if not bounds.forgets:
            tally.lost += 1
            tally.faults.append(f"{asked.job_id} has no record")
        return
    if job.state is not State.SUCCEEDED:
        tally.faults.append(f"{asked.job_id} is {job.state} at the end: {job.error}")
    if job.deaths_total or job.deaths:
        tally.faults.append(f"{asked.job_id} has {job.deaths_total} deaths, and nobody was killed")
    if job.retries:
        tally.faults.append(f"{asked.job_id} was retried {job.retries} times")
    try:
        events = _all(journal, asked.job_id)
        result = journal.result(asked.job_id)
    except JobNotFound:
        tally.faults.append(f"{asked.job_id} has no journal")
        return
    if [event.seq for event in events] != list(range(1, len(events) + 1)):
        tally.faults.append(f"the journal of {asked.job_id} has the numbers {[event.seq for event in events]}")
    seen = 0
    for event in events:
        if isinstance(event, Delta):
            delta = {"offset": event.offset, "token_ids": event.token_ids}
            seen = _compare(tally, f"the journal of {asked.job_id}", delta, seen, truth)
    if seen != asked.max_tokens:
        tally.lost += asked.max_tokens - seen
        tally.faults.append(f"the journal of {asked.job_id} has {seen} of {asked.max_tokens} tokens")
    types = [event.type for event in events]
    if types[-1:] != ["completed"] or TERMINAL_TYPES.intersection(types[:-1]):
        tally.faults.append(f"the journal of {asked.job_id} ends as {[t for t in types if t != 'delta']}")
    if result is None or [choice.token_ids for choice in result] != [truth]:
        tally.faults.append(f"the result of {asked.job_id} is not its tokens")


def _all(journal: Journal, job_id: str) -> list[Event]:
    found: list[Event] = []
    while page := journal.read(job_id, found[-1].seq if found else 0):
        found += page
    return found


def _judge_answers(tally: Tally, answers: Sequence[Answer], bounds: Bounds) -> None:
    tally.refused = sum(answer.what == "submit" and answer.status == 503 for answer in answers)
    tally.slowest_s = max((answer.seconds for answer in answers), default=0.0)
    for answer in answers:
        said = f"{answer.what} was answered {answer.status} {answer.code} after {answer.seconds:.1f} s"
        if answer.status == 0 or answer.seconds > bounds.answer_s:
            tally.faults.append(said)
        elif answer.what == "/health/live":
            if answer.status != 200:
                tally.faults.append(said)
        elif answer.status == 503:
            if answer.code != "store_unavailable" or not answer.retry_after.isdigit():
                tally.faults.append(f"{said}, Retry-After {answer.retry_after!r}")
        elif answer.status >= 400 and not (bounds.forgets and answer.status in (404, 410)):
            tally.faults.append(said)


def _judge_remains(tally: Tally, client: redis.Redis) -> None:
    """Nothing that belongs to a job that has ended: no lease, no place in a lane or a list of waits."""
    for pattern in ("hr:leases", "hr:delay", "hr:deadlines", "hr:held:*", "hr:lane:*"):
        for key in client.scan_iter(pattern):
            tally.faults.append(f"{key.decode()} is left over")
