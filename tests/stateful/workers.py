"""What a worker says to a queue, in its name or in another's, once or twice. Knows no order: see `machine.py`."""

from collections.abc import Sequence
from dataclasses import replace

from headrace.contract.errors import ErrorInfo
from headrace.contract.events import Delta
from headrace.contract.generation import Choice, Usage
from headrace.contract.job import HELD, Job, Lease, State
from headrace.queue.base import Append, ClaimRequest, Ending
from headrace.queue.redis import RedisQueue
from tests.contracts.bench import Bench, RedisBench
from tests.stateful.claims import Answer, carry_out, judge
from tests.stateful.clients import Clients
from tests.stateful.ground import LANES
from tests.stateful.model import Grant, Record
from tests.stateful.store_view import read_store

ERROR = ErrorInfo("engine_error", "it broke", True)
FOREIGN = "00000000-000"
"""A lease id that no claim has given."""


def right_ids(choice: int, start: int, stop: int) -> tuple[int, ...]:
    """What every worker makes at these offsets."""
    return tuple(range(1000 * choice + start, 1000 * choice + stop))


class Workers(Clients):
    """`known` are all grants there have been, and only one of them at a time may write to a job."""

    def __init__(self) -> None:
        super().__init__()
        self.known: list[Grant] = []

    def living(self) -> list[Grant]:
        """The grants that may write now."""
        return [record.grant for record in self.model.records.values() if record.grant and record.state in HELD]

    def record_of(self, grant: Grant) -> Record | None:
        """None for a job that was lost with the end of a replica's log."""
        return self.model.records.get(grant.job_id)

    # -- taking

    def claim(self, request: ClaimRequest, *, again: bool = False) -> None:
        ready = [
            r.job.id for r in self.model.records.values() if r.state is State.QUEUED and r.job.lane in request.lanes
        ]
        self.follow()
        given = {name: _claim(bench, request, again) for name, bench in self.sides.items()}
        first = next(iter(self.sides))
        taken = given[first]
        for name, jobs in given.items():
            assert [job.id for job in jobs] == [job.id for job in taken], f"{name} claims others"
            for job in jobs:
                assert (job.owner, job.digest, job.state) == (request.worker, request.digest, State.LEASED)
        left = {job_id: self.got(first, job_id).state for job_id in ready if job_id not in {job.id for job in taken}}
        answer = Answer(taken, left, self.passed_over(), self.revisions)
        judge(self.model, request, answer)
        rows = [{name: jobs[at] for name, jobs in given.items()} for at in range(len(taken))]
        for grant in carry_out(self.model, request, answer, rows):
            self.known.append(grant)
            for lease in grant.leases.values():
                assert lease.lease_id
                assert lease.epoch == grant.epoch

    def claim_all(self, worker: str, digest: str = "d1") -> None:
        self.claim(ClaimRequest(LANES, worker, "r1", digest, 1000, 1000, 4))

    def passed_over(self) -> dict[str, int]:
        [bench] = self.redis_benches()
        return dict(read_store(bench.client).passed)

    # -- writing

    def write(self, grant: Grant, deltas: Sequence[Delta], again: bool = False) -> None:
        self.do(
            lambda: self.model.append(grant, deltas),
            lambda name, bench: bench.queue.append([Append(grant.leases[name], tuple(deltas))])[0],
            again=again,
        )

    def get_on(self, grant: Grant, length: int, choices: Sequence[int] = (0, 1), reason: str | None = None) -> None:
        """As a worker does: from where the journal stands; with a reason to stop before the end."""
        record = self.record_of(grant)
        deltas = []
        for choice in choices:
            if record and choice < len(record.choices) and not record.reasons[choice]:
                have, most = len(record.choices[choice]), record.job.request.max_tokens
                end = min(have + length, most)
                ids = right_ids(choice, have, end)
                deltas.append(Delta(0, choice, have, ids, "text", "length" if end == most else reason))
        self.write(grant, deltas)

    # -- keeping and leaving

    def renew(self, worker: str, grants: Sequence[Grant], *, again: bool = False) -> dict[str, tuple[Lease, ...]]:
        """What each queue says that this worker holds."""
        held: dict[str, tuple[Lease, ...]] = {}

        def renewed(name: str, bench: Bench) -> tuple[set[str], set[str]]:
            reply = bench.queue.renew(worker, [grant.leases[name] for grant in grants])
            held[name] = reply.held
            return {lease.job_id for lease in reply.held}, set(reply.gone)

        self.do(lambda: self.model.renew(worker, grants), renewed, again=again)
        for record in self.model.held_by(worker):
            known = record.grant
            assert known is not None
            assert all(known.leases[name] in leases for name, leases in held.items())
        return held

    def retry(self, grant: Grant, in_ms: int, again: bool = False) -> None:
        self.do(
            lambda: self.model.retry(grant, in_ms, ERROR),
            lambda name, bench: bench.queue.retry(grant.leases[name], in_ms, ERROR),
            again=again,
        )

    def finish(self, grant: Grant, short: bool = False, cached: int = 0, again: bool = False) -> None:
        """With what the journal has, or as one who does not have all of it."""
        record = self.record_of(grant)
        journaled = record.choices if record else [[]]
        choices = tuple(Choice(at, tuple(ids[: len(ids) - short]), "length") for at, ids in enumerate(journaled))
        self.hand_in(grant, Ending(State.SUCCEEDED, Usage(0, 0, cached), choices), again)

    def fail(self, grant: Grant, again: bool = False) -> None:
        self.hand_in(grant, Ending(State.FAILED, Usage(0), error=ERROR), again)

    def hand_in(self, grant: Grant, ending: Ending, again: bool) -> None:
        self.do(
            lambda: self.model.finish(grant, ending),
            lambda name, bench: bench.queue.finish(grant.leases[name], ending),
            again=again,
        )

    def release(self, grant: Grant, again: bool = False) -> None:
        self.do(
            lambda: self.model.release(grant), lambda name, bench: bench.queue.release(grant.leases[name]), again=again
        )

    # -- lying

    def forge(self, grant: Grant, epoch_off: int) -> None:
        """The right epoch with another's lease id, or the right id with another epoch."""
        lies = {
            name: replace(lease, epoch=lease.epoch + epoch_off) if epoch_off else replace(lease, lease_id=FOREIGN)
            for name, lease in grant.leases.items()
        }
        liar = replace(grant, leases=lies)
        self.get_on(liar, 1, (0,))
        self.release(liar)
        self.retry(liar, 500)
        self.fail(liar)
        self.renew(grant.worker, [liar])


def _claim(bench: Bench, request: ClaimRequest, again: bool) -> tuple[Job, ...]:
    """On Redis a claim whose answer was lost is sent again as it was, and answered as before."""
    if not isinstance(bench, RedisBench):
        return bench.queue.claim(request)
    queue = bench.queue
    assert isinstance(queue, RedisQueue)
    call = queue.verbs.claim(request)
    jobs = queue._run(call)
    if again and jobs:
        assert {job.lease for job in queue._run(call)} == {job.lease for job in jobs}, "a claim said twice claims twice"
    return jobs
