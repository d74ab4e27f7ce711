"""The ground of the machines: how a thing is done to every queue and to the model, and what holds after each step.

Knows no rule; what is right is said by `model.py` and `checks.py`.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import hypothesis.strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant

from headrace.contract.job import TRANSITIONS, Job, State
from headrace.queue.base import ReapReply, ReapRequest, Timing
from tests.contracts.bench import Bench, RedisBench
from tests.stateful import checks
from tests.stateful.model import Model
from tests.stateful.still_time import set_time
from tests.stateful.store_view import read_store

TIMING = Timing()

LANES = ("tiny@stable", "tiny@canary")
WORKERS = ("w1", "w2", "w3")

lately = st.sampled_from([True, True, True, False])
seldom = st.sampled_from([False, False, False, True])
revisions = st.sampled_from(["r1"] * 9 + ["r2"])


class Ground(RuleBasedStateMachine):
    """`open_sides` gives the queues by name, fresh and empty; the first says who is claimed, the others must agree."""

    jobs = Bundle("jobs")
    open_sides: Callable[[], AbstractContextManager[Mapping[str, Bench]]]

    def __init__(self) -> None:
        super().__init__()
        self.model = Model(TIMING, 1_700_000_000_000)
        self.revisions: dict[str, str] = {}
        self.before: dict[str, tuple[State, int]] = {}
        self.count = 0

    def open(self) -> None:
        self.context = type(self).open_sides()
        self.sides = dict(self.context.__enter__())

    def teardown(self) -> None:
        if hasattr(self, "context"):
            try:
                if sys.exc_info()[0] is None:  # else it has failed already
                    self.end_everything()
            finally:
                self.context.__exit__(None, None, None)

    # -- how a thing is done

    def follow(self) -> None:
        """Every queue's clock shows the model's time."""
        for bench in self.sides.values():
            set_time(bench, self.model.now)

    def do(
        self,
        said: Callable[[], Any],
        verb: Callable[[str, Bench], Any],
        *,
        again: bool = False,
        read: Callable[[Any], Any] = lambda reply: reply,
    ) -> Any:
        """Every queue answers as the model does. Said again, since an answer was lost, a thing changes nothing more."""
        reply: Any = None
        for turn in range(1 + again):
            before = self.state_of_all()
            reply = said()
            self.follow()
            for name, bench in self.sides.items():
                answered = read(verb(name, bench))
                assert answered == read(reply), f"{name} answered {answered}, and not {read(reply)}"
            assert turn == 0 or self.state_of_all() == before
        return reply

    def state_of_all(self) -> list[tuple[State, int, int, int, int]]:
        records = self.model.records.values()
        return [(r.state, r.epoch, len(r.journal), r.retries, r.deaths_total) for r in records]

    def got(self, side: str, job_id: str) -> Job:
        job = self.sides[side].queue.get(job_id)
        assert job is not None, "a job is gone"
        return job

    def redis_benches(self) -> Iterator[RedisBench]:
        return (bench for bench in self.sides.values() if isinstance(bench, RedisBench))

    def reap(self, worker: str = "", died: bool = False, again: bool = False) -> None:
        def read(reply: ReapReply) -> tuple[set[str], set[str], set[str], bool]:
            return set(reply.requeued), set(reply.expired), set(reply.dead), reply.quiet

        self.do(
            lambda: self.model.reap(worker, died),
            lambda _, bench: bench.queue.reap(ReapRequest(worker, died)),
            again=again,
            read=read,
        )

    def pass_time(self, seconds: int) -> None:
        self.model.now += seconds * 1000

    # -- what holds at any time

    @invariant()
    def everything_is_as_the_model_says(self) -> None:
        for name, bench in getattr(self, "sides", {}).items():
            if isinstance(bench, RedisBench):
                view = read_store(bench.client)
                self.check_all(view.records.__getitem__, view.journals.__getitem__)
                checks.check_places(self.model, view)
                checks.check_owners(self.model, view)
            else:
                self.check_all(lambda job_id, name=name: self.got(name, job_id), bench.events)  # type: ignore[misc]
        self.check_moves()

    def check_all(self, job: Callable[[str], Job], journal: Callable[[str], Any]) -> None:
        for job_id, record in self.model.records.items():
            checks.check_job(record, job(job_id), journal(job_id))

    def check_moves(self) -> None:
        """No move that the contract has not, by way of others or directly; and no epoch that goes down."""
        for job_id, record in self.model.records.items():
            state, epoch = self.before.get(job_id, (record.state, record.epoch))
            assert state is record.state or record.state in _reachable(state)
            assert record.epoch >= epoch
            self.before[job_id] = record.state, record.epoch

    def end_everything(self) -> None:
        """Whatever lives is cancelled; then nothing stands anywhere, and every result is what was journaled."""
        self.check_results()
        for job_id in list(self.model.records):
            self.do(lambda job_id=job_id: self.model.cancel(job_id), lambda _, b, job_id=job_id: b.queue.cancel(job_id))  # type: ignore[misc]
        self.everything_is_as_the_model_says()

    def check_results(self) -> None:
        for job_id, record in self.model.records.items():
            for bench in self.sides.values():
                kept = bench.result(job_id)
                assert kept == record.result
                if kept is not None:
                    assert [list(choice.token_ids) for choice in kept] == record.choices


def _reachable(state: State) -> set[State]:
    """By any number of moves: one verb may do several, as a claim that was said again after a reap."""
    found: set[State] = set()
    ahead = {state}
    while ahead:
        ahead = {after for before in ahead for after in TRANSITIONS[before]} - found
        found |= ahead
    return found
