"""Any order of verbs: both queues give the same answers, and every accepted job ends exactly once."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from headrace.contract.errors import ErrorInfo
from headrace.contract.events import TERMINAL_TYPES, Delta
from headrace.contract.generation import Choice, Usage
from headrace.contract.job import TRANSITIONS, Job, JobClass, Lease, State
from headrace.queue.base import Append, ClaimRequest, Ending, Outcome, ReapRequest, Timing
from headrace.store.connection import connect
from tests.contracts.bench import LANE, Bench, MemoryBench, RedisBench, claim_request, get, make_job
from tests.redis_server import RedisServer, running_redis

WORKERS = ("w1", "w2")
ERROR = ErrorInfo("engine_error", "broke", True)
TOKENS = 24
"""Output of every job; token i of it has the id i, whoever makes it."""

TIMING = Timing(lease_ms=10_500, starvation_ms=2_500, urgent_ms=30_500)
"""Time is turned by whole seconds and every limit lies between two of them, so that it does not matter that real time
passes on one side only."""


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with running_redis(fsync="everysec") as server:
        yield server


@contextmanager
def fresh_bench(server: RedisServer) -> Iterator[RedisBench]:
    with connect(server.url) as client:
        client.flushall()
        yield RedisBench(client, TIMING)


class Fleet(RuleBasedStateMachine):
    """Two workers, a gateway and a sweeper; each thing is done to both queues, and to no other lease than was given."""

    jobs = Bundle("jobs")
    server: RedisServer

    def __init__(self) -> None:
        super().__init__()
        self.leases: dict[str, dict[str, tuple[Lease, ...]]] = {}
        self.states: dict[str, State] = {}
        self.count = 0

    @initialize()
    def start(self) -> None:
        self.context = fresh_bench(self.server)
        self.real = self.context.__enter__()
        self.plain = MemoryBench(TIMING)
        self.benches: tuple[Bench, Bench] = (self.real, self.plain)

    def both(self, verb: Any) -> Any:
        """Do it to both; the answers must be the same."""
        self.real.follow(self.plain.now)
        real, plain = (verb(bench) for bench in self.benches)
        assert real == plain
        return real

    def lease(self, bench: Bench, job: Job, stale: bool) -> Lease:
        known = self.leases.get(job.id, {}).get(type(bench).__name__, (job.lease,))
        return known[0 if stale else -1]

    @rule(
        target=jobs,
        job_class=st.sampled_from(JobClass),
        prompt=st.integers(1, 60),
        deadline_in=st.none() | st.sampled_from([5_500, 100_500]),
        n=st.sampled_from([1, 1, 2]),
        tenant=st.sampled_from("abc"),
        hold=st.booleans(),
    )
    def accept(self, job_class: JobClass, prompt: int, deadline_in: int | None, n: int, tenant: str, hold: bool) -> Any:
        if self.count >= 12:
            return multiple()
        self.count += 1
        job = make_job(prompt, TOKENS, job_class=job_class, deadline_in=deadline_in, n=n, tenant=tenant)
        self.both(lambda bench: bench.queue.accept(job, body_hash="b", hold=hold))
        self.turn(1000)
        return job

    @rule(job=jobs)
    def accept_again(self, job: Job) -> None:
        """What was held back is queued now; anything else stays as it is."""
        self.both(lambda bench: bench.queue.accept(job, body_hash="b"))

    @rule(worker=st.sampled_from(WORKERS), kv_tokens=st.sampled_from([60, 200, 1000]), wanted=st.integers(0, 4))
    def claim(self, worker: str, kv_tokens: int, wanted: int) -> None:
        request: ClaimRequest = claim_request(worker, kv_tokens, capacity=1000, max_jobs=wanted)
        self.real.follow(self.plain.now)
        claimed = [bench.queue.claim(request) for bench in self.benches]
        assert [job.id for job in claimed[0]] == [job.id for job in claimed[1]]
        for bench, jobs in zip(self.benches, claimed, strict=True):
            for job in jobs:
                mine = self.leases.setdefault(job.id, {})
                mine[type(bench).__name__] = (*mine.get(type(bench).__name__, ()), job.lease)

    @rule(
        job=jobs,
        stale=st.booleans(),
        offset=st.integers(0, TOKENS),
        length=st.integers(0, 12),
        choice=st.integers(0, 1),
    )
    def append(self, job: Job, stale: bool, offset: int, length: int, choice: int) -> None:
        ids = tuple(range(offset, min(offset + length, TOKENS)))
        delta = Delta(0, choice, offset, ids, "t", "length" if offset + length >= TOKENS else None)
        self.both(lambda bench: bench.queue.append([Append(self.lease(bench, job, stale), (delta,))]))

    @rule(job=jobs, step=st.integers(1, 20))
    def get_on(self, job: Job, step: int) -> None:
        """As a worker does: from where the journal stands."""
        for choice in range(job.request.n):
            have = get(self.plain, job.id).next_offset[choice]
            self.append(job, False, have, step, choice)

    @rule(job=jobs, stale=st.booleans())
    def finish(self, job: Job, stale: bool) -> None:
        choices = tuple(Choice(i, tuple(range(TOKENS)), "length") for i in range(job.request.n))
        ending = Ending(State.SUCCEEDED, Usage(0), choices)
        self.both(lambda bench: bench.queue.finish(self.lease(bench, job, stale), ending))

    @rule(job=jobs, stale=st.booleans())
    def fail(self, job: Job, stale: bool) -> None:
        ending = Ending(State.FAILED, Usage(0), error=ERROR)
        self.both(lambda bench: bench.queue.finish(self.lease(bench, job, stale), ending))

    @rule(job=jobs, stale=st.booleans(), in_ms=st.sampled_from([500, 3500]))
    def retry(self, job: Job, stale: bool, in_ms: int) -> None:
        self.both(lambda bench: bench.queue.retry(self.lease(bench, job, stale), in_ms, ERROR))

    @rule(job=jobs, stale=st.booleans())
    def release(self, job: Job, stale: bool) -> None:
        self.both(lambda bench: bench.queue.release(self.lease(bench, job, stale)))

    @rule(job=jobs)
    def cancel(self, job: Job) -> None:
        self.both(lambda bench: bench.queue.cancel(job.id))

    @rule(job=jobs, worker=st.sampled_from(WORKERS))
    def renew(self, job: Job, worker: str) -> None:
        def renewed(bench: Bench) -> tuple[set[str], tuple[str, ...]]:
            reply = bench.queue.renew(worker, [self.lease(bench, job, False)])
            return {lease.job_id for lease in reply.held}, reply.gone

        self.both(renewed)

    @rule(worker=st.sampled_from(("", *WORKERS)), died=st.booleans())
    def reap(self, worker: str, died: bool) -> None:
        def reaped(bench: Bench) -> tuple[set[str], set[str], set[str], bool]:
            reply = bench.queue.reap(ReapRequest(worker, died))
            return set(reply.requeued), set(reply.expired), set(reply.dead), reply.quiet

        self.both(reaped)

    @rule(worker=st.sampled_from(WORKERS), beats=st.booleans())
    def beat(self, worker: str, beats: bool) -> None:
        for bench in self.benches:
            (bench.beat if beats else bench.lose_beat)(worker)

    @rule(ms=st.sampled_from([1000, 4000, 11_000]))
    def turn(self, ms: int) -> None:
        for bench in self.benches:
            bench.advance(ms)

    @invariant()
    def moves_are_allowed_and_nothing_is_torn(self) -> None:
        for job_id in self.plain.memory.job_ids() if self.count else ():
            real, plain = (get(bench, job_id) for bench in self.benches)
            for field in ("state", "epoch", "attempt", "retries", "deaths", "deaths_total", "seq", "next_offset"):
                assert getattr(real, field) == getattr(plain, field), field
            assert (real.owner, real.kv_tokens) == (plain.owner, plain.kv_tokens)
            assert [(past.attempt, past.code, past.offset) for past in real.history] == [
                (past.attempt, past.code, past.offset) for past in plain.history
            ]
            before = self.states.get(job_id, State.ACCEPTED)
            self.states[job_id] = real.state
            assert real.state is before or real.state in TRANSITIONS[before]

    def teardown(self) -> None:
        if not hasattr(self, "context"):
            return
        try:
            self.end_everything()
        finally:
            self.context.__exit__(None, None, None)

    def end_everything(self) -> None:
        """Whatever lives is cancelled; then each job has one end, a journal without gap, and nothing is left over."""
        for job_id in self.plain.memory.job_ids():
            self.both(lambda bench, job_id=job_id: bench.queue.cancel(job_id).state)
            for bench in self.benches:
                events = bench.events(job_id)
                assert [event.seq for event in events] == list(range(1, len(events) + 1))
                assert [event.type in TERMINAL_TYPES for event in events].count(True) == 1
                assert events[-1].type in TERMINAL_TYPES
                check_tokens([event for event in events if isinstance(event, Delta)])
        assert self.real.leftovers() - {f"hr:card:{LANE}"} == set()


def check_tokens(deltas: list[Delta]) -> None:
    """Each token of each choice once, in order."""
    for choice in {delta.choice for delta in deltas}:
        mine = [delta for delta in deltas if delta.choice == choice]
        joined = [token for delta in mine for token in delta.token_ids]
        assert joined == list(range(len(joined)))
        assert [delta.finish_reason for delta in mine[:-1]] == [None] * (len(mine) - 1)


def test_any_order_of_verbs_is_the_same_in_both_queues(server: RedisServer) -> None:
    class Machine(Fleet):
        pass

    Machine.server = server
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=60,
            stateful_step_count=40,
            deadline=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_every_accepted_job_ends_once_when_workers_come_and_go(bench: Bench) -> None:
    """A plain run: claim, write a bit, and now and then lose the worker; jobs still succeed with every token."""
    jobs = [make_job(4, TOKENS) for _ in range(12)]
    for job in jobs:
        bench.queue.accept(job)
    open_jobs = {job.id for job in jobs}
    for turn in range(400):
        worker = WORKERS[turn % 2]
        for job in bench.queue.claim(claim_request(worker, max_jobs=3)):
            have = job.next_offset[0]
            if turn % 3 == 0:
                bench.queue.append(
                    [Append(job.lease, (Delta(0, 0, have, tuple(range(have, min(have + 17, TOKENS)))),))]
                )
                bench.queue.reap(ReapRequest(worker=worker, died=turn % 6 == 0))
                continue
            rest = Delta(0, 0, have, tuple(range(have, TOKENS)), finish_reason="length")
            bench.queue.append([Append(job.lease, (rest,))])
            done = Ending(State.SUCCEEDED, Usage(4), (Choice(0, tuple(range(TOKENS)), "length"),))
            assert bench.queue.finish(job.lease, done).outcome is Outcome.OK
            open_jobs.discard(job.id)
        if not open_jobs:
            break
        bench.advance(500)
    assert open_jobs == set()
    for job in jobs:
        events = bench.events(job.id)
        assert [event.type in TERMINAL_TYPES for event in events].count(True) == 1
        check_tokens([event for event in events if isinstance(event, Delta)])
        assert bench.result(job.id) == (Choice(0, tuple(range(TOKENS)), "length"),)
    assert bench.leftovers() == set()
