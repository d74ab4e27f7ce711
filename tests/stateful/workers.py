"""Workers: they claim, write, renew, and hand in; they repeat themselves, come too late, and lie."""

from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
from hypothesis.stateful import multiple, rule

from headrace.contract.errors import ErrorInfo
from headrace.contract.events import Delta
from headrace.contract.generation import Choice, Usage
from headrace.contract.job import Job, Lease, State
from headrace.queue.base import Append, ClaimRequest, Ending
from headrace.queue.redis import RedisQueue
from tests.contracts.bench import Bench, RedisBench
from tests.stateful.claims import Answer, carry_out, judge
from tests.stateful.clients import Clients
from tests.stateful.ground import LANES, TOKENS, WORKERS, lately, revisions, seldom
from tests.stateful.model import Grant
from tests.stateful.store_view import read_store

ERROR = ErrorInfo("engine_error", "it broke", True)
FOREIGN = "00000000-000"
"""A lease id that no claim has given."""

digests = st.sampled_from(["d1", "d1", "d2"])


def right_ids(choice: int, start: int, stop: int) -> tuple[int, ...]:
    """What every worker makes at these offsets."""
    return tuple(range(1000 * choice + start, 1000 * choice + stop))


class Workers(Clients):
    """A grant of any age may be tried: most of the time the last of its job, which may be void as well."""

    def chosen(self, grant: Grant, fresh: bool) -> Grant:
        return self.latest[grant.job_id] if fresh else grant

    @rule(
        target=Clients.grants,
        worker=st.sampled_from(WORKERS),
        kv_tokens=st.sampled_from([1000, 120, 60]),
        capacity=st.sampled_from([1000] * 4 + [70]),
        max_jobs=st.sampled_from([1, 2, 4, 8]),
        revision=revisions,
        digest=digests,
        lanes=st.sampled_from([LANES, LANES, LANES[:1]]),
        says_held=seldom,
        again=seldom,
    )
    def claim(
        self,
        worker: str,
        kv_tokens: int,
        capacity: int,
        max_jobs: int,
        revision: str,
        digest: str,
        lanes: tuple[str, ...],
        says_held: bool,
        again: bool,
    ) -> Any:
        room = min(kv_tokens, capacity)
        request = ClaimRequest(lanes, worker, revision, digest, room, capacity, max_jobs, int(says_held))
        ready = [r.job.id for r in self.model.records.values() if r.state is State.QUEUED and r.job.lane in lanes]
        given: dict[str, tuple[Job, ...]] = {}
        self.follow()
        for name, bench in self.sides.items():
            given[name] = _claim(bench, request, again)
        self.see_in_time()
        first = next(iter(self.sides))
        taken = given[first]
        for name, jobs in given.items():
            assert [job.id for job in jobs] == [job.id for job in taken], f"{name} claims others"
            for job in jobs:
                assert (job.owner, job.digest, job.state) == (worker, digest, State.LEASED)
        left = {job_id: self.got(first, job_id).state for job_id in ready if job_id not in {job.id for job in taken}}
        answer = Answer(taken, left, self.passed_over(), self.revisions)
        judge(self.model, request, answer)
        rows = [{name: jobs[at] for name, jobs in given.items()} for at in range(len(taken))]
        grants = carry_out(self.model, request, answer, rows)
        for grant in grants:
            for lease in grant.leases.values():
                assert lease.lease_id
                assert lease.epoch == grant.epoch
        self.latest |= {grant.job_id: grant for grant in grants}
        return multiple(*grants)

    def passed_over(self) -> dict[str, int]:
        for bench in self.sides.values():
            if isinstance(bench, RedisBench):
                return dict(read_store(bench.client).passed)
        raise AssertionError("no queue tells who was passed over")

    @rule(
        grant=Clients.grants,
        fresh=lately,
        length=st.integers(1, 20),
        choices=st.sampled_from([(0,), (0, 1), (1,), (1, 0)]),
        stops=seldom,
        again=st.booleans(),
    )
    def get_on(
        self, grant: Grant, fresh: bool, length: int, choices: tuple[int, ...], stops: bool, again: bool
    ) -> None:
        """As a worker does: from where the journal stands."""
        mine = self.chosen(grant, fresh)
        record = self.model.records.get(mine.job_id)
        if record is None:
            return
        deltas = []
        for choice in choices:
            if choice < len(record.choices) and not record.reasons[choice]:
                have = len(record.choices[choice])
                end = min(have + length, TOKENS)
                reason = "length" if end == TOKENS else "stop" if stops else None
                deltas.append(Delta(0, choice, have, right_ids(choice, have, end), "text", reason))
        self.write(mine, tuple(deltas), again)

    @rule(
        grant=Clients.grants,
        fresh=lately,
        choice=st.sampled_from([0, 0, 1]),
        shift=st.integers(-8, 3),
        length=st.integers(0, 12),
        wrong=seldom,
        reason=st.sampled_from([None, None, "length", "stop"]),
        again=seldom,
    )
    def write_near_the_end(
        self,
        grant: Grant,
        fresh: bool,
        choice: int,
        shift: int,
        length: int,
        wrong: bool,
        reason: str | None,
        again: bool,
    ) -> None:
        """Repeats, gaps, straddles, contradictions, ends that are said twice or otherwise; `choice` may not exist."""
        mine = self.chosen(grant, fresh)
        record = self.model.records.get(mine.job_id)
        have = len(record.choices[choice]) if record and choice < len(record.choices) else 0
        offset = max(0, have + shift)
        ids = right_ids(choice, offset, offset + length)
        if wrong and ids:
            ids = (*ids[:-1], 7)
        self.write(mine, (Delta(0, choice, offset, ids, "text", reason),), again)

    def write(self, grant: Grant, deltas: tuple[Delta, ...], again: bool) -> None:
        self.do(
            lambda: self.model.append(grant, deltas),
            lambda name, bench: bench.queue.append([Append(grant.leases[name], deltas)])[0],
            again=again,
        )

    @rule(worker=st.sampled_from(WORKERS), grant=Clients.grants, fresh=lately, gives_back=seldom)
    def renew(self, worker: str, grant: Grant, fresh: bool, gives_back: bool) -> None:
        """With one lease, anybody's; now and then all that the server names besides goes back, as rule 6 has it."""
        mine = self.chosen(grant, fresh)
        held: dict[str, tuple[Lease, ...]] = {}

        def renewed(name: str, bench: Bench) -> tuple[set[str], set[str]]:
            reply = bench.queue.renew(worker, [mine.leases[name]])
            held[name] = reply.held
            return {lease.job_id for lease in reply.held}, set(reply.gone)

        self.do(lambda: self.model.renew(worker, [mine]), renewed)
        for record in self.model.held_by(worker):
            known = record.grant
            assert known is not None
            assert all(known.leases[name] in leases for name, leases in held.items())
            if gives_back and known != mine:
                self.release(known, False, False)

    @rule(worker=st.sampled_from(WORKERS))
    def renew_all(self, worker: str) -> None:
        grants = [record.grant for record in self.model.held_by(worker) if record.grant]

        def renewed(name: str, bench: Bench) -> tuple[set[str], set[str]]:
            reply = bench.queue.renew(worker, [grant.leases[name] for grant in grants])
            return {lease.job_id for lease in reply.held}, set(reply.gone)

        self.do(lambda: self.model.renew(worker, grants), renewed, again=True)

    @rule(grant=Clients.grants, fresh=lately, in_ms=st.sampled_from([500, 3500]), again=seldom)
    def retry(self, grant: Grant, fresh: bool, in_ms: int, again: bool) -> None:
        mine = self.chosen(grant, fresh)
        self.do(
            lambda: self.model.retry(mine, in_ms, ERROR),
            lambda name, bench: bench.queue.retry(mine.leases[name], in_ms, ERROR),
            again=again,
        )

    @rule(grant=Clients.grants, fresh=lately, short=seldom, cached=st.integers(0, 3), again=st.booleans())
    def finish(self, grant: Grant, fresh: bool, short: bool, cached: int, again: bool) -> None:
        """With what the journal has, or as one who does not have all of it."""
        mine = self.chosen(grant, fresh)
        record = self.model.records.get(mine.job_id)
        known = record.choices if record else [[]]
        choices = tuple(Choice(at, tuple(ids[: len(ids) - short]), "length") for at, ids in enumerate(known))
        self.hand_in(mine, Ending(State.SUCCEEDED, Usage(0, 0, cached), choices), again)

    @rule(grant=Clients.grants, fresh=lately, again=seldom)
    def fail(self, grant: Grant, fresh: bool, again: bool) -> None:
        self.hand_in(self.chosen(grant, fresh), Ending(State.FAILED, Usage(0), error=ERROR), again)

    def hand_in(self, grant: Grant, ending: Ending, again: bool) -> None:
        self.do(
            lambda: self.model.finish(grant, ending),
            lambda name, bench: bench.queue.finish(grant.leases[name], ending),
            again=again,
        )

    @rule(grant=Clients.grants, fresh=lately, again=seldom)
    def release(self, grant: Grant, fresh: bool, again: bool) -> None:
        mine = self.chosen(grant, fresh)
        self.do(
            lambda: self.model.release(mine), lambda name, bench: bench.queue.release(mine.leases[name]), again=again
        )

    @rule(grant=Clients.grants, epoch_off=st.sampled_from([0, 1, -1]))
    def forge(self, grant: Grant, epoch_off: int) -> None:
        """The right epoch with another's lease id, or the right id with another epoch, writes nothing."""
        if grant.job_id not in self.model.records:
            return
        nobody = replace(grant, leases={})
        deltas = (Delta(0, 0, 0, right_ids(0, 0, 1), "text"),)

        def forged(name: str) -> Lease:
            mine = self.latest[grant.job_id].leases[name]
            return replace(mine, epoch=mine.epoch + epoch_off) if epoch_off else replace(mine, lease_id=FOREIGN)

        self.do(
            lambda: self.model.append(nobody, deltas),
            lambda name, bench: bench.queue.append([Append(forged(name), deltas)])[0],
        )
        self.do(lambda: self.model.release(nobody), lambda name, bench: bench.queue.release(forged(name)))
        self.do(
            lambda: self.model.retry(nobody, 500, ERROR),
            lambda name, bench: bench.queue.retry(forged(name), 500, ERROR),
        )


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
