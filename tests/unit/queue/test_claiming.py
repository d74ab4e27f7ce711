"""Who is claimed next, with no store and no clock."""

from dataclasses import replace

from headrace.contract.generation import FrozenRequest, Sampling
from headrace.contract.job import Job, JobClass, Kind
from headrace.queue.base import ClaimRequest
from headrace.queue.claiming import Act, Moment, Ready, decide

REQUEST = ClaimRequest(("m@s",), "w", "r1", "d", kv_tokens=100, capacity=1000, max_jobs=4)
MOMENT = Moment(now=10_000, urgent_ms=1000, starvation_ms=2000, revisions={"m@s": "r1"})


def job(
    name: str, *, kv: int = 10, born: int = 0, job_class: JobClass = JobClass.STANDARD, deadline_at: int | None = None
) -> Job:
    request = FrozenRequest((1, 2), Sampling(0), 8)
    return Job(name, "m", "m@s", "r1", job_class, Kind.CHAT, request, kv_tokens=kv, place=born, deadline_at=deadline_at)


def decided(*jobs: Job | Ready, request: ClaimRequest = REQUEST, moment: Moment = MOMENT) -> dict[str, Act]:
    ready = [each if isinstance(each, Ready) else Ready(each) for each in jobs]
    return dict(decide(request, ready, moment))


def test_order_is_class_then_urgency_then_birth() -> None:
    jobs = (
        job("old", born=1),
        job("urgent", born=5, deadline_at=10_900),
        job("later", born=2, deadline_at=12_000),
        job("background", born=0, job_class=JobClass.BACKGROUND),
    )
    assert list(decided(*jobs)) == ["urgent", "old", "later", "background"]


def test_the_budget_goes_round_and_is_never_overdrawn() -> None:
    acts = decided(job("a", kv=60, born=1), job("b", kv=60, born=2), job("c", kv=40, born=3), job("d", kv=1, born=4))
    assert acts == {"a": Act.TAKE, "b": Act.PASS_OVER, "c": Act.TAKE, "d": Act.PASS_OVER}


def test_a_starving_job_stops_the_walk() -> None:
    starving = Ready(job("a", kv=200, born=1), passed_at=8000)
    assert decided(starving, job("b", born=2)) == {"a": Act.PASS_OVER}
    patient = Ready(job("a", kv=200, born=1), passed_at=8001)
    assert decided(patient, job("b", born=2)) == {"a": Act.PASS_OVER, "b": Act.TAKE}


def test_what_can_never_fit_starves_nobody() -> None:
    request = replace(REQUEST, capacity=9)
    assert decided(Ready(job("a"), passed_at=0), request=request) == {}


def test_a_deadline_is_met_before_anything_else() -> None:
    late = replace(job("a", deadline_at=10_000), revision="other")
    assert decided(late) == {"a": Act.EXPIRE}


def test_a_revision_is_gone_only_when_the_card_says_so() -> None:
    old = replace(job("a"), revision="r0")
    assert decided(old) == {"a": Act.REVISION_GONE}
    assert decided(old, moment=replace(MOMENT, revisions={})) == {}
    assert decided(old, moment=replace(MOMENT, revisions={"m@s": "r0"})) == {}


def test_a_killer_is_taken_alone_or_not_at_all() -> None:
    killer, other = replace(job("a", born=1), deaths=2), job("b", born=2)
    assert decided(killer, other) == {"a": Act.TAKE}
    assert decided(killer, other, request=replace(REQUEST, held=1)) == {"a": Act.PASS_OVER, "b": Act.TAKE}
    assert decided(replace(killer, place=3), other) == {"b": Act.TAKE, "a": Act.PASS_OVER}
