"""Holds what a queue has against the model, and against itself: journals, records, and every set in Redis.

Knows how the model's state shows in keys; knows no verb.
"""

from collections.abc import Sequence
from dataclasses import replace

from headrace.contract.errors import ErrorInfo
from headrace.contract.events import TERMINAL_TYPES, Accepted, Delta, Event, Failed, Retrying
from headrace.contract.job import HELD, TERMINAL, Job, State
from headrace.store import keys
from tests.stateful.model import Model, Record
from tests.stateful.store_view import FLEETS, FOREVER, PLACES, StoreView

SLACK_MS = 60_000
"""Two TTLs that begin at the same moment are told apart by less, however slow this machine is."""


def check_job(record: Record, job: Job, journal: Sequence[Event]) -> None:
    """One job in one queue."""
    check_journal(job, journal)
    assert [_plain(event) for event in journal] == [_plain(event) for event in record.journal]
    assert (job.state, job.epoch, job.owner) == (record.state, record.epoch, record.owner)
    assert (job.attempt, job.retries, job.deaths) == (record.attempt, record.retries, record.deaths)
    assert (job.deaths_total, job.death_offset) == (record.deaths_total, record.death_offset)
    assert job.next_offset == tuple(map(len, record.choices))
    assert job.kv_tokens == record.kv_tokens
    assert (job.error.code if job.error else "") == record.error
    assert [(past.attempt, past.worker, past.code, past.offset) for past in job.history] == record.history
    assert bool(job.lease_id) == (record.grant is not None)
    for ours, theirs in (
        (record.born_at, job.created_at),
        (record.deadline, job.deadline_at),
        (record.leased_at, job.leased_at),
        (record.first_token_at, job.first_token_at),
        (record.ended_at, job.ended_at),
    ):
        assert ours == theirs


def check_journal(job: Job, journal: Sequence[Event]) -> None:
    """What holds of every journal, whatever was done: no gap, one end and nothing after it, every token once."""
    assert [event.seq for event in journal] == list(range(1, len(journal) + 1)), "seq has a gap"
    assert job.seq == len(journal)
    ends = [event.type in TERMINAL_TYPES for event in journal]
    assert ends == [False] * (len(ends) - 1) + [job.state in TERMINAL], "an end that is missing, repeated, or not last"
    for choice, have in enumerate(job.next_offset):
        at = 0
        for delta in journal:
            if isinstance(delta, Delta) and delta.choice == choice:
                assert delta.offset == at, "a token is missing or said twice"
                at += len(delta.token_ids)
        assert at == have, "the record does not say what is journaled"


def check_places(model: Model, view: StoreView) -> None:
    """Each job stands where its state says and nowhere else, with its time."""
    expected = {place: at for record in model.records.values() for place, at in _places(record).items()}
    assert set(view.members) == set(expected)
    for place, at in expected.items():
        assert at is None or at == view.members[place], place
    for job_id, job in view.records.items():
        # From the store alone, without the model: ready, held, waiting, held back and ended are all there are.
        kinds = [key.split(":")[1] for key, member in view.members if member == job_id and not key.endswith(":due")]
        stands = [kind for kind in kinds if kind in ("lane", "leases", "delay", "accepted")]
        assert len(stands) == (job.state not in TERMINAL), f"{job.state} in {stands}"
        assert ("held" in kinds) == ("leases" in kinds) == (job.state in HELD)
    assert len(view.records) == len(model.records)


def check_owners(model: Model, view: StoreView) -> None:
    """Every key belongs to a living job or to the fleet, or ends by itself."""
    for key, ttl in view.ttls.items():
        kind, _, rest = key.removeprefix(keys.PREFIX).partition(":")
        if kind in ("job", "ev"):
            state = model.records[rest].state
            assert (ttl == FOREVER) == (state is State.DEAD or state not in TERMINAL), key
        elif kind == "idem":
            _, owner = model.keys[_tenant_and_key(rest)]
            lives = model.records[owner].state not in TERMINAL
            assert (ttl == FOREVER) == lives, key
            record_ttl = view.ttl(keys.job(owner))
            assert lives or record_ttl == FOREVER or ttl <= record_ttl + SLACK_MS, "a key outlives its record"
        elif kind in PLACES or kind in FLEETS:
            assert ttl == FOREVER, key
        else:
            assert ttl > 0, f"{key} has no owner and no TTL"
    wanted = {keys.idempotency(*pair) for pair in model.keys}
    assert wanted == {key for key in view.ttls if key.startswith("hr:idem:")}
    ended_well = {keys.result(job_id) for job_id, r in model.records.items() if r.state is State.SUCCEEDED}
    assert ended_well == {key for key in view.ttls if key.startswith("hr:result:")}


def _places(record: Record) -> dict[tuple[str, str], int | None]:
    """(key, job id) of every set that a job must stand in, with its score where that is a time."""
    job, state = record.job, record.state
    found: dict[str, int | None] = {keys.job_index(job.tenant): record.born_at}
    if state not in TERMINAL and record.deadline is not None:
        found[keys.DEADLINES] = record.deadline
    if state is State.ACCEPTED:
        found[keys.ACCEPTED] = record.born_at
    elif state is State.QUEUED:
        found[keys.lane(job.lane, job.job_class)] = None
        if record.deadline is not None:
            found[keys.due(job.lane, job.job_class)] = record.deadline
    elif state in HELD:
        found |= {keys.LEASES: record.until, keys.held(record.owner): None}
    elif state is State.RETRY_WAIT:
        found[keys.DELAY] = record.until
    elif state is State.DEAD:
        found[keys.dlq(job.lane)] = record.ended_at
    return {(key, job.id): at for key, at in found.items()}


def _tenant_and_key(rest: str) -> tuple[str, str]:
    tenant, _, key = rest.partition(":")
    return tenant, key


def _plain(event: Event) -> Event:
    """Without what the model does not foretell: times and words."""
    if isinstance(event, Accepted):
        return replace(event, at=0)
    if isinstance(event, (Failed, Retrying)):
        return replace(event, error=ErrorInfo(event.error.code, ""))
    return event
