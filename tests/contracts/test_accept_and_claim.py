"""accept and claim: what gets in, who gets it, in which order (rules 8, 10, 11, 12)."""

from dataclasses import replace
from typing import Any

import pytest

from headrace.contract.ids import new_job_id
from headrace.contract.job import Job, JobClass, State
from headrace.queue import rules
from headrace.queue.base import Outcome, ReapRequest
from tests.contracts.bench import (
    LANE,
    TIMING,
    Bench,
    accept,
    append,
    claim,
    claim_request,
    delta,
    get,
    make_job,
    success,
    types,
)


def claimed(bench: Bench, **options: Any) -> list[str]:
    return [job.id for job in bench.queue.claim(claim_request(**options))]


def test_an_accepted_job_is_queued_with_its_first_event(bench: Bench) -> None:
    job = make_job(prompt=3, max_tokens=50)
    assert bench.queue.accept(job).outcome is Outcome.OK
    kept = get(bench, job.id)
    assert kept.state is State.QUEUED
    assert kept.request == job.request
    assert kept.kv_tokens == 53
    assert kept.created_at is not None
    assert types(bench, job.id) == ["accepted"]
    assert kept.seq == 1


def test_a_dead_letter_has_one_redrive_however_long_it_is_parked(bench: Bench) -> None:
    dead = make_job()
    accept(bench, dead)
    for _ in range(rules.MOST_DEATHS):
        bench.queue.claim(claim_request())
        bench.queue.reap(ReapRequest(worker="w1", died=True))
    # Under another key: the first one's goes a day after the end of its job.
    first, second = (replace(make_job(), redrive_of=dead.id, idem_key=key) for key in ("day one", "day three"))
    assert bench.queue.accept(first).outcome is Outcome.OK
    assert get(bench, dead.id).redriven_as == first.id
    bench.queue.cancel(first.id)
    again = bench.queue.accept(second)
    assert (again.outcome, again.job_id) == (Outcome.EXISTS, first.id)
    assert get(bench, dead.id).state is State.DEAD


def test_a_redrive_of_what_is_gone_writes_no_record_for_it(bench: Bench) -> None:
    gone = replace(make_job(), redrive_of=new_job_id())
    assert bench.queue.accept(gone).outcome is Outcome.OK
    assert bench.queue.get(gone.redrive_of) is None


def test_every_field_of_a_record_comes_back(bench: Bench) -> None:
    job = replace(make_job(n=2), traceparent="00-ab-cd-01", metadata={"ключ": 'va"lue'}, idem_key="k", tenant="t")
    bench.queue.accept(job, body_hash="b")
    kept = get(bench, job.id)
    assert kept.created_at
    changed = {
        "state": State.QUEUED,
        "created_at": kept.created_at,
        "queued_at": kept.queued_at,
        "kv_tokens": kept.kv_tokens,
        "place": kept.place,
        "seq": 1,
        "next_offset": (0, 0),
    }
    assert kept == replace(job, **changed)  # type: ignore[arg-type]


def test_accepting_again_is_the_same_acceptance(bench: Bench) -> None:
    job = make_job(idem_key="k")
    bench.queue.accept(job, body_hash="b")
    assert bench.queue.accept(job, body_hash="b").outcome is Outcome.OK
    assert claimed(bench) == [job.id]
    assert types(bench, job.id) == ["accepted"]


def test_a_key_belongs_to_its_tenant_whatever_colons_there_are(bench: Bench) -> None:
    for tenant, key in (("a", "b:c"), ("a:b", "c"), ("a%3Ab", "c")):
        assert bench.queue.accept(replace(make_job(idem_key=key), tenant=tenant)).outcome is Outcome.OK


def test_an_idempotency_key_names_one_job(bench: Bench) -> None:
    job = make_job(idem_key="k")
    bench.queue.accept(job, body_hash="b")
    same = bench.queue.accept(replace(job, id=new_job_id()), body_hash="b")
    assert (same.outcome, same.job_id) == (Outcome.EXISTS, job.id)
    other = bench.queue.accept(replace(job, id=new_job_id()), body_hash="c")
    assert other.outcome is Outcome.CONFLICT
    elsewhere = bench.queue.accept(replace(job, id=new_job_id(), tenant="t2"), body_hash="c")
    assert elsewhere.outcome is Outcome.OK


def test_unknown_jobs_are_missing(bench: Bench) -> None:
    assert bench.queue.get("job_none") is None
    assert bench.queue.cancel("job_none").outcome is Outcome.MISSING
    job = make_job()
    assert bench.queue.release(job.lease).outcome is Outcome.MISSING
    assert bench.queue.finish(job.lease, success()).outcome is Outcome.MISSING
    assert append(bench, job.lease).outcome is Outcome.MISSING


def test_a_claim_mints_a_lease(bench: Bench) -> None:
    job = make_job()
    accept(bench, job)
    [mine] = bench.queue.claim(claim_request("w1", digest="d9"))
    assert (mine.state, mine.epoch, mine.attempt, mine.owner, mine.digest) == (State.LEASED, 1, 1, "w1", "d9")
    assert mine.lease_id
    assert mine == get(bench, job.id)
    assert claimed(bench) == []


def test_class_comes_before_age(bench: Bench) -> None:
    jobs = {job_class: make_job(job_class=job_class) for job_class in reversed(JobClass)}
    accept(bench, *jobs.values())
    assert claimed(bench) == [jobs[job_class].id for job_class in JobClass]


def test_age_orders_a_class_across_lanes(bench: Bench) -> None:
    jobs = [make_job(lane=("a@s", "b@s")[i % 2]) for i in range(6)]
    accept(bench, *jobs)
    assert claimed(bench, lanes=("a@s", "b@s")) == [job.id for job in jobs]


def test_only_the_asked_lanes_are_served(bench: Bench) -> None:
    accept(bench, make_job(lane="other@stable"))
    assert claimed(bench) == []


def test_a_near_deadline_overtakes_its_class_but_no_higher_one(bench: Bench) -> None:
    first, far = make_job(), make_job(deadline_in=60_000)
    near, nearer = make_job(deadline_in=20_000), make_job(deadline_in=10_000)
    interactive = make_job(job_class=JobClass.INTERACTIVE)
    accept(bench, first, far, near, nearer, interactive)
    assert claimed(bench) == [job.id for job in (interactive, nearer, near, first, far)]


def test_a_returned_job_keeps_its_place(bench: Bench) -> None:
    first, second = make_job(), make_job()
    accept(bench, first)
    mine = claim(bench)
    accept(bench, second)
    bench.queue.release(mine.lease)
    assert claimed(bench) == [first.id, second.id]


def test_no_more_jobs_than_wanted(bench: Bench) -> None:
    jobs = [make_job() for _ in range(5)]
    accept(bench, *jobs)
    assert claimed(bench, max_jobs=2) == [job.id for job in jobs[:2]]
    assert claimed(bench, max_jobs=0) == []
    assert claimed(bench) == [job.id for job in jobs[2:]]


def test_a_deep_lane_is_walked_to_its_fitting_jobs(bench: Bench) -> None:
    jobs = [make_job(prompt=200 if i < 60 else 4) for i in range(80)]
    accept(bench, *jobs)
    assert claimed(bench, kv_tokens=10_000, capacity=100, max_jobs=10) == [job.id for job in jobs[60:70]]


def test_the_budget_is_shared_out_and_what_does_not_fit_is_passed_over(bench: Bench) -> None:
    small, large, tiny = make_job(10, 40), make_job(100, 100), make_job(10, 30)
    accept(bench, small, large, tiny)
    assert claimed(bench, kv_tokens=100, capacity=1000) == [small.id, tiny.id]


def test_a_job_passed_over_for_two_seconds_holds_the_budget(bench: Bench) -> None:
    large, small = make_job(100, 100), make_job(10, 10)
    accept(bench, large)
    assert claimed(bench, kv_tokens=100, capacity=1000) == []
    bench.advance(1900)
    accept(bench, small)
    bench.advance(200)
    assert claimed(bench, kv_tokens=100, capacity=1000) == []
    assert claimed(bench, kv_tokens=1000) == [large.id, small.id]


def test_a_job_above_the_capacity_is_left_to_a_larger_worker(bench: Bench) -> None:
    large, small = make_job(100, 400), make_job(10, 10)
    accept(bench, large, small)
    for _ in range(2):
        bench.advance(3000)
        assert large.id not in claimed(bench, worker="small", kv_tokens=450, max_jobs=1)
    assert get(bench, small.id).owner == "small"
    assert claimed(bench, worker="big", kv_tokens=500) == [large.id]


def test_a_job_that_needs_a_newer_worker_is_left_to_one(bench: Bench) -> None:
    plain, other = make_job(), make_job()
    newer = replace(other, request=replace(other.request, logprobs=1))
    accept(bench, newer, plain)
    older = replace(claim_request(), schema=1)
    assert [job.id for job in bench.queue.claim(older)] == [plain.id]
    assert bench.queue.claim(older) == ()
    bench.advance(TIMING.starvation_ms)
    assert [job.id for job in bench.queue.claim(claim_request("w2"))] == [newer.id]


def test_the_estimate_is_the_moving_average_of_outputs(bench: Bench) -> None:
    long = make_job(4, 2000)
    accept(bench, long)
    assert get(bench, long.id).kv_tokens == 4 + 256
    mine = claim(bench)
    append(bench, mine.lease, delta(0, tuple(range(16)), "stop"))
    bench.queue.finish(mine.lease, success(*range(16)))
    after = make_job(4, 2000)
    accept(bench, after)
    assert get(bench, after.id).kv_tokens == 4 + 226


def test_the_estimate_counts_what_is_journaled(bench: Bench) -> None:
    job = make_job(4, 300)
    accept(bench, job)
    mine = claim(bench)
    append(bench, mine.lease, delta(0, tuple(range(100))))
    bench.queue.release(mine.lease)
    assert get(bench, job.id).kv_tokens == 4 + 100 + 200


def test_a_deadline_passed_in_the_lane_is_met_at_the_claim(bench: Bench) -> None:
    job = make_job(deadline_in=1000)
    accept(bench, job)
    bench.advance(1001)
    assert claimed(bench) == []
    assert get(bench, job.id).state is State.EXPIRED
    assert types(bench, job.id) == ["accepted", "expired"]


def test_another_revision_is_left_while_the_card_still_names_it(bench: Bench) -> None:
    job = make_job(revision="old")
    accept(bench, job)
    assert claimed(bench) == []
    bench.set_card(LANE, "old")
    assert claimed(bench) == []
    assert claimed(bench, revision="old") == [job.id]


def test_a_revision_that_is_gone_fails_the_job(bench: Bench) -> None:
    job = make_job(revision="old")
    accept(bench, job)
    bench.set_card(LANE, "r1")
    assert claimed(bench) == []
    ended = get(bench, job.id)
    assert ended.state is State.FAILED
    assert ended.error is not None
    assert ended.error.code == "revision_gone"
    assert types(bench, job.id) == ["accepted", "failed"]


def kill(bench: Bench, job: Job, times: int) -> None:
    for _ in range(times):
        bench.queue.claim(claim_request("victim"))
        bench.queue.reap(ReapRequest(worker="victim", died=True))
    assert get(bench, job.id).deaths == times


@pytest.mark.parametrize("held", [0, 1])
def test_a_job_that_has_killed_twice_runs_alone(bench: Bench, held: int) -> None:
    killer, other = make_job(), make_job()
    accept(bench, killer)
    kill(bench, killer, 2)
    accept(bench, other)
    if held:
        assert claimed(bench, held=1) == [other.id]
    else:
        assert claimed(bench) == [killer.id]
        assert claimed(bench, held=1) == []
        mine = get(bench, killer.id)
        append(bench, mine.lease, delta(0, tuple(range(16))))
        assert claimed(bench, held=1) == [other.id]


def test_a_job_that_must_run_alone_gets_its_turn(bench: Bench) -> None:
    killer, first, second = make_job(), make_job(), make_job()
    accept(bench, killer)
    kill(bench, killer, 2)
    accept(bench, first)
    [mine] = bench.queue.claim(claim_request(held=1))
    bench.advance(2000)
    accept(bench, second)
    assert claimed(bench, held=1) == []
    bench.queue.cancel(mine.id)
    assert claimed(bench) == [killer.id]


def test_a_claim_looks_for_something_smaller_among_the_next_few_only(bench: Bench) -> None:
    large = [make_job(prompt=400, max_tokens=64) for _ in range(rules.MOST_PASSED_OVER)]
    small = make_job(prompt=4, max_tokens=64)
    accept(bench, *large[1:], small, large[0])
    assert claimed(bench, kv_tokens=100, capacity=1000) == [small.id]
    again = make_job(prompt=4, max_tokens=64)
    accept(bench, again)
    assert claimed(bench, kv_tokens=100, capacity=1000) == []
    assert all(bench.queue.cancel(job.id) for job in large[:1])
    assert claimed(bench, kv_tokens=100, capacity=1000) == [again.id]
