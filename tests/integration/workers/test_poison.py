"""Rule 8 from outside: a poison job kills three engines and no neighbour, and lives once it is redriven elsewhere."""

import asyncio

from headrace.contract.dead_letter_query import DeadLetterFilter, workers_of
from headrace.contract.job import Job, State
from headrace.queue.async_redis import AsyncRedisQueue
from headrace.queue.base import Timing
from headrace.store.async_payloads import AsyncPayloads
from headrace.store.cards import CardBook
from headrace.store.connection import connect_async
from headrace.store.dead_letters import DeadLetters
from headrace.submission.redrive import Redriver
from tests.integration.workers.fleet import Fleet, eventually
from tests.integration.workers.test_fake_engine_runs import QUICK, expected

POISON = "! kills"
TOKENS = 40
STRIKES_AT = 20
SEEN = {**QUICK, "lease_ms": 10_000}
"""No lease runs out here: the parent sees each engine die."""


async def listed(url: str) -> tuple[Job, ...]:
    async with connect_async(url) as client:
        return (await DeadLetters(client).page(DeadLetterFilter(), limit=10)).letters


async def redriven(url: str) -> str:
    """The job that takes the place of the only letter."""
    async with connect_async(url) as client:
        redriver = Redriver(
            AsyncRedisQueue(client, Timing()), CardBook(client), DeadLetters(client), AsyncPayloads(), Timing()
        )
        page = await redriver.redrive(DeadLetterFilter(code="poison"), limit=10)
    (outcome,) = page.outcomes
    assert outcome.error is None
    return outcome.job_id


def test_one_poison_job_among_32(fleet: Fleet) -> None:
    knobs = f"fake:speed=100,crash_at={STRIKES_AT},poison={POISON.encode()[0]}"
    with fleet.worker(fleet.settings(knobs, queue=SEEN)) as worker:
        poison = fleet.submit(worker, POISON, TOKENS)
        neighbours = {fleet.submit(worker, f"prompt {i}", TOKENS): f"prompt {i}" for i in range(31)}
        dead = fleet.ended(poison)
        assert (dead.state, dead.deaths_total) == (State.DEAD, 3)
        for job_id, prompt in neighbours.items():
            assert fleet.ended(job_id).state is State.SUCCEEDED
            assert fleet.token_ids(job_id) == expected(prompt, TOKENS)
        shared = {fleet.get(job_id).deaths_total for job_id in neighbours}
        lane, deaths = worker.lane, worker.metrics.snapshot()["counters"]["headrace_worker_engine_deaths_total"]
    assert deaths == 3
    assert shared <= {0, 1, 2}  # the third was its own
    assert shared & {1, 2}
    (letter,) = asyncio.run(listed(fleet.server.url))
    assert letter.id == poison
    assert letter.error is not None
    assert letter.error.code == "poison"
    assert [(past.attempt, past.worker, past.code, past.offset) for past in letter.history] == [
        (attempt, worker.id, "worker_died", STRIKES_AT) for attempt in (1, 2, 3)
    ]
    assert workers_of(letter) == (worker.id,)

    with fleet.worker(fleet.settings("fake:", queue=SEEN)) as healthy:
        eventually(lambda: healthy.ready, "engine ready")
        again = asyncio.run(redriven(fleet.server.url))
        job = fleet.ended(again)
    assert (job.state, job.redrive_of, job.lane) == (State.SUCCEEDED, poison, lane)
    assert fleet.token_ids(again) == expected(POISON, TOKENS)
    assert fleet.token_ids(poison) == expected(POISON, STRIKES_AT)
    assert fleet.get(poison).redriven_as == again
    assert asyncio.run(listed(fleet.server.url)) == ()
