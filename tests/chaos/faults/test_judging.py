"""The judge sees what it is there for: each thing that can go wrong, put into a round in which nothing did."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import redis

from headrace.contract.events import Delta
from headrace.contract.generation import Choice, FrozenRequest, Sampling, Usage
from headrace.contract.ids import new_job_id
from headrace.contract.job import Job, JobClass, Kind, State
from headrace.queue.base import Append, ClaimRequest, Ending
from headrace.queue.redis import RedisQueue
from headrace.settings import QueueSettings
from headrace.store import keys
from headrace.store.connection import connect
from tests.chaos.faults.judging import Bounds, Tally, expected, judge, went_on
from tests.chaos.faults.load import Answer, Asked
from tests.redis_server import running_redis

STRICT = Bounds(forgets=False, answer_s=1.0, on_s=8.0)
FORGETS = replace(STRICT, forgets=True)
HEALED_AT = 15.0


class Seen:
    """What `judge` looks at of a load."""

    def __init__(self, asked: list[Asked], answers: list[Answer]) -> None:
        self.asked, self.answers = asked, answers


@pytest.fixture(scope="module")
def client() -> Iterator[redis.Redis]:
    with running_redis() as server, connect(server.url) as client:
        yield client


@pytest.fixture
def asked(client: redis.Redis) -> Asked:
    """A job that ran to its end, and a client that saw it."""
    client.flushall()
    asked = Asked("key", (1, 2, 3), 7, 6, long=True, job_id=new_job_id(), over="completed")
    ids = expected(asked)
    queue = RedisQueue(client, QueueSettings().timing())
    request = FrozenRequest(asked.prompt, Sampling(seed=7), 6)
    queue.accept(Job(asked.job_id, "m", "m@stable", "r", JobClass.STANDARD, Kind.COMPLETION, request))
    (job,) = queue.claim(ClaimRequest(("m@stable",), "w", "r", "d", 1_000, 1_000, 1))
    queue.append(
        [Append(job.lease, (Delta(0, 0, 0, ids[:3]),)), Append(job.lease, (Delta(0, 0, 3, ids[3:], "", "length"),))]
    )
    queue.finish(job.lease, Ending(State.SUCCEEDED, Usage(3, 6), (Choice(0, ids, "length"),)))
    asked.events = [
        (10.0, delta(0, ids[:3])),
        (20.0, delta(3, ids[3:], "length")),
        (21.0, {"type": "completed"}),
    ]
    return asked


def delta(offset: int, ids: tuple[int, ...], finish: str | None = None) -> dict[str, Any]:
    return {"type": "delta", "choice": 0, "offset": offset, "token_ids": list(ids), "finish_reason": finish}


def tally_of(client: redis.Redis, asked: Asked, bounds: Bounds = STRICT, *answers: Answer) -> Tally:
    return judge(Seen([asked], list(answers)), client, bounds, HEALED_AT)  # type: ignore[arg-type]


def test_nothing_is_wrong_with_what_went_well(client: redis.Redis, asked: Asked) -> None:
    tally = tally_of(client, asked)
    assert not tally.faults
    assert (tally.jobs, tally.tokens, tally.lost, tally.repeated, tally.different) == (1, 6, 0, 0, 0)
    assert tally.on_s == 5.0


def again(asked: Asked) -> None:
    asked.events.insert(1, asked.events[0])


def skip(asked: Asked) -> None:
    del asked.events[0]


def change(asked: Asked) -> None:
    asked.events[0][1]["token_ids"][1] += 1


def wait(asked: Asked) -> None:
    asked.over = ""


def fail(asked: Asked) -> None:
    asked.over = "failed"


def go(asked: Asked) -> None:
    asked.over = "job_not_found"


@pytest.mark.parametrize(
    ("harm", "figure"),
    [(again, "repeated"), (skip, "lost"), (change, "different"), (fail, "lost"), (go, "lost"), (wait, "faults")],
)
def test_what_a_client_should_not_see_is_seen(
    client: redis.Redis, asked: Asked, harm: Callable[[Asked], None], figure: str
) -> None:
    harm(asked)
    tally = tally_of(client, asked)
    assert tally.faults
    assert getattr(tally, figure)


@pytest.mark.parametrize(
    "harm",
    [
        lambda client, job: client.hset(keys.job(job), "state", "RUNNING"),
        lambda client, job: client.hset(keys.job(job), "deaths_total", 1),
        lambda client, job: client.hset(keys.job(job), "retries", 1),
        lambda client, job: client.xdel(keys.journal(job), "3-0"),
        lambda client, job: client.xtrim(keys.journal(job), maxlen=3, approximate=False),
        lambda client, job: client.delete(keys.result(job)),
        lambda client, job: client.zadd(keys.LEASES, {job: 1}),
        lambda client, job: client.sadd(keys.held("w"), job),
    ],
)
def test_what_is_wrong_in_the_store_is_seen(
    client: redis.Redis, asked: Asked, harm: Callable[[redis.Redis, str], object]
) -> None:
    harm(client, asked.job_id)
    assert tally_of(client, asked).faults


def test_a_job_that_is_gone_is_lost_unless_redis_was_made_to_forget(client: redis.Redis, asked: Asked) -> None:
    client.delete(keys.job(asked.job_id), keys.journal(asked.job_id), keys.result(asked.job_id))
    assert tally_of(client, asked).lost == 1
    asked.over = "job_not_found"
    tally = tally_of(client, asked, FORGETS)
    assert (tally.lost, tally.forgotten, tally.faults) == (0, 1, [])
    asked.over = ""
    assert tally_of(client, asked, FORGETS).faults


@pytest.mark.parametrize(
    "answer",
    [
        Answer("submit", 0.0, 0.1, 500, "internal_error"),
        Answer("submit", 0.0, 0.1, 503, "store_unavailable"),
        Answer("submit", 0.0, 0.1, 503, "internal_error", "1"),
        Answer("submit", 0.0, 5.0, 0, "ReadTimeout"),
        Answer("look", 0.0, 1.5, 200),
        Answer("look", 0.0, 0.1, 404, "job_not_found"),
        Answer("/health/live", 0.0, 0.1, 503, "store_unavailable", "1"),
    ],
)
def test_an_answer_that_no_client_should_get_is_seen(client: redis.Redis, asked: Asked, answer: Answer) -> None:
    assert tally_of(client, asked, STRICT, answer).faults


def test_an_honest_refusal_is_no_fault(client: redis.Redis, asked: Asked) -> None:
    tally = tally_of(client, asked, STRICT, Answer("submit", 0.0, 0.9, 503, "store_unavailable", "1"))
    assert (tally.faults, tally.refused) == ([], 1)


def test_a_stream_that_went_on_late_is_seen(client: redis.Redis, asked: Asked) -> None:
    assert went_on([asked], HEALED_AT) == 5.0
    assert tally_of(client, asked, replace(STRICT, on_s=4.0)).faults
