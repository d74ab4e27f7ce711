"""Clients: they accept jobs, with and without a key, held back or at once, ask again, and cancel."""

from dataclasses import dataclass, replace
from typing import Any

import hypothesis.strategies as st
from hypothesis.stateful import initialize, multiple, rule

from headrace.contract.job import Job, JobClass
from tests.contracts.bench import make_job
from tests.stateful.ground import LANES, Ground, revisions, seldom

MOST_JOBS = 10


@dataclass(frozen=True, slots=True)
class Wish:
    """What a client asks for; `again` says that it did not hear the answer and asks once more."""

    prompt: int
    tokens: int
    job_class: JobClass
    tenant: str
    lane: str
    revision: str
    digest_wanted: str
    deadline_in: int | None
    n: int
    idem_key: str
    hold: bool
    again: bool

    def job(self) -> Job:
        plain = make_job(
            self.prompt,
            self.tokens,
            job_class=self.job_class,
            lane=self.lane,
            revision=self.revision,
            idem_key=self.idem_key,
            deadline_in=self.deadline_in,
            n=self.n,
        )
        return replace(plain, tenant=self.tenant, digest_wanted=self.digest_wanted)


wishes = st.builds(
    Wish,
    prompt=st.integers(1, 60),
    tokens=st.sampled_from([24] * 5 + [200]),
    job_class=st.sampled_from(JobClass),
    tenant=st.sampled_from(["default", "other"]),
    lane=st.sampled_from((LANES[0], LANES[0], LANES[1])),
    revision=revisions,
    digest_wanted=st.sampled_from([""] * 7 + ["d1"]),
    deadline_in=st.sampled_from([None] * 4 + [5_000, 60_000]),
    n=st.sampled_from([1, 1, 2]),
    idem_key=st.sampled_from([""] * 4 + ["k1", "k2"]),
    hold=seldom,
    again=seldom,
)


class Clients(Ground):
    """Everything a gateway does to a queue, and what is announced to it."""

    @initialize(target=Ground.jobs, wishes=st.lists(wishes, min_size=2, max_size=5))
    def start(self, wishes: list[Wish]) -> Any:
        self.open()
        for lane in LANES:
            self.announce(lane, "r1")
        return self.accept(wishes)

    @rule(target=Ground.jobs, wishes=st.lists(wishes, min_size=1, max_size=3))
    def accept(self, wishes: list[Wish]) -> Any:
        accepted = []
        for wish in wishes[: MOST_JOBS - self.count]:
            accepted.append(wish.job())
            self.say_accept(accepted[-1], "b", wish.hold, wish.again)
            self.pass_time(1)
        self.count += len(accepted)
        return multiple(*accepted)

    @rule(job=Ground.jobs, body_hash=st.sampled_from(["b", "b", "c"]), hold=seldom)
    def accept_again(self, job: Job, body_hash: str, hold: bool) -> None:
        """The second half of a hold, a client that asks anew, or another body under the same key."""
        self.say_accept(job, body_hash, hold, False)

    def say_accept(self, job: Job, body_hash: str, hold: bool, again: bool) -> None:
        self.do(
            lambda: self.model.accept(job, body_hash, hold),
            lambda _, bench: bench.queue.accept(job, body_hash=body_hash, hold=hold),
            again=again,
        )

    @rule(job=Ground.jobs, again=seldom)
    def cancel(self, job: Job, again: bool) -> None:
        self.do(lambda: self.model.cancel(job.id), lambda _, bench: bench.queue.cancel(job.id), again=again)

    @rule(lane=st.sampled_from(LANES), revision=revisions)
    def announce(self, lane: str, revision: str) -> None:
        self.revisions[lane] = revision
        for bench in self.sides.values():
            bench.set_card(lane, revision)
