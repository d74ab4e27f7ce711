"""Fair share: each tenant with work gets the same of it, whatever it heaps up (rule 11, ADR 15)."""

from collections import Counter

import redis

from headrace.contract.job import Job, JobClass
from headrace.queue.base import ReapRequest
from headrace.store import keys
from tests.contracts.bench import (
    LANE,
    Bench,
    RedisBench,
    accept,
    append,
    claim_request,
    delta,
    get,
    make_job,
    success,
)


def of(tenant: str, count: int, *, prompt: int = 36, max_tokens: int = 64) -> list[Job]:
    return [make_job(prompt, max_tokens, tenant=tenant) for _ in range(count)]


def taken(bench: Bench, count: int) -> list[Job]:
    return list(bench.queue.claim(claim_request(max_jobs=count)))


def tenants(jobs: list[Job]) -> Counter[str]:
    return Counter(job.tenant for job in jobs)


def test_a_late_tenant_is_served_next_whatever_another_heaped_up(bench: Bench) -> None:
    accept(bench, *of("noisy", 50))
    taken(bench, 5)
    quiet = of("quiet", 1)
    accept(bench, *quiet)
    assert quiet[0].id in [job.id for job in taken(bench, 2)]


def test_tenants_get_the_same_number_of_tokens(bench: Bench) -> None:
    accept(bench, *of("large", 20, prompt=136), *of("small", 60, prompt=36))
    shares = Counter[str]()
    for job in taken(bench, 40):
        shares[job.tenant] += job.kv_tokens
    assert abs(shares["large"] - shares["small"]) <= 200


def test_the_jobs_of_a_tenant_go_in_order_of_arrival(bench: Bench) -> None:
    jobs = of("a", 6) + of("b", 6)
    accept(bench, *jobs)
    order = [job.id for job in taken(bench, 12)]
    for tenant in "ab":
        mine = [job.id for job in jobs if job.tenant == tenant]
        assert [job_id for job_id in order if job_id in mine] == mine


def test_an_idle_tenant_saves_nothing_up(bench: Bench) -> None:
    accept(bench, *of("a", 30))
    taken(bench, 20)
    accept(bench, *of("b", 30))
    assert tenants(taken(bench, 20)) == {"a": 10, "b": 10}


def test_a_job_that_comes_back_keeps_its_place(bench: Bench) -> None:
    accept(bench, *of("a", 3))
    first = taken(bench, 1)[0]
    accept(bench, *of("b", 3))
    bench.queue.reap(ReapRequest(worker="w1"))
    again = taken(bench, 1)[0]
    assert again.id == first.id
    assert get(bench, first.id).place == first.place


def test_what_was_never_taken_costs_its_tenant_nothing(bench: Bench) -> None:
    heap = of("a", 40)
    accept(bench, *heap, *of("b", 10))
    for job in heap:
        bench.queue.cancel(job.id)
    accept(bench, *of("a", 10))
    assert tenants(taken(bench, 10)) == {"a": 5, "b": 5}


def test_each_class_has_its_own_turn(bench: Bench) -> None:
    accept(bench, *of("a", 10))
    urgent = make_job(36, tenant="a", job_class=JobClass.INTERACTIVE)
    accept(bench, *of("b", 2), urgent)
    assert taken(bench, 1)[0].id == urgent.id
    assert tenants(taken(bench, 4)) == {"a": 2, "b": 2}


def test_urgent_jobs_go_first_and_move_no_turn(bench: Bench) -> None:
    accept(bench, *of("b", 4))
    hurry = [make_job(36, tenant="a", deadline_in=20_000) for _ in range(6)]
    accept(bench, *hurry)
    assert [job.id for job in taken(bench, 6)] == [job.id for job in hurry]
    accept(bench, *of("c", 1))
    assert "c" in tenants(taken(bench, 2))


def test_lanes_are_compared_by_their_turns(bench: Bench) -> None:
    other = "other@stable"
    accept(bench, *of("a", 30))
    taken(bench, 20)
    accept(bench, *(make_job(36, tenant="a", lane=other) for _ in range(2)))
    both = bench.queue.claim(claim_request(lanes=(LANE, other), max_jobs=4))
    assert Counter(job.lane for job in both) == {LANE: 2, other: 2}


def test_tenants_who_owe_nothing_are_forgotten(client: redis.Redis, redis_bench: RedisBench) -> None:
    for number in range(30):
        accept(redis_bench, make_job(36, tenant=f"t{number}"))
    for job in taken(redis_bench, 30):
        append(redis_bench, job.lease, delta(0, (1,), "stop"))
        redis_bench.queue.finish(job.lease, success(1))
    accept(redis_bench, *of("last", 3))
    taken(redis_bench, 3)
    assert client.zcard(keys.fair(LANE, "standard")) <= 2
    assert client.pttl(keys.fair(LANE, "standard")) > 0
