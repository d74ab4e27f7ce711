"""append: order, repeats, gaps and the fence (rules 1-4, 8)."""

from dataclasses import replace

import pytest

from headrace.contract.events import Accepted, Delta, Resumed, Started
from headrace.contract.generation import Choice, TokenLogprobs, Usage
from headrace.contract.job import Job, State
from headrace.queue.base import Append, Ending, Outcome, ReapRequest
from tests.contracts.bench import Bench, accept, append, claim, claim_request, delta, get, make_job, types


@pytest.fixture
def job(bench: Bench) -> Job:
    """A claimed job, nothing written yet."""
    accept(bench, make_job())
    return claim(bench)


def test_the_first_append_starts_the_attempt(bench: Bench, job: Job) -> None:
    assert append(bench, job.lease).seq == 2
    assert append(bench, job.lease).seq == 2
    assert get(bench, job.id).state is State.RUNNING
    assert bench.events(job.id)[1] == Started(2, 1, "w1", "r1", "d1")


def test_deltas_are_numbered_and_kept_without_text(bench: Bench, job: Job) -> None:
    reply = append(bench, job.lease, delta(0, (5, 6, 4_294_967_295)), delta(3, (8,), "stop"))
    assert (reply.outcome, reply.seq) == (Outcome.OK, 4)
    first, *rest = bench.events(job.id)
    assert isinstance(first, Accepted)
    assert rest == [
        Started(2, 1, "w1", "r1", "d1"),
        Delta(3, 0, 0, (5, 6, 4_294_967_295)),
        Delta(4, 0, 3, (8,), finish_reason="stop"),
    ]
    kept = get(bench, job.id)
    assert (kept.next_offset, kept.seq) == ((4,), 4)
    assert kept.first_token_at is not None


def test_many_jobs_are_written_in_one_call(bench: Bench) -> None:
    accept(bench, *(make_job() for _ in range(3)))
    one, two, three = bench.queue.claim(claim_request())
    bench.queue.cancel(two.id)
    replies = bench.queue.append([Append(each.lease, (delta(0, (1,)),)) for each in (one, two, three)])
    assert [reply.outcome for reply in replies] == [Outcome.OK, Outcome.TERMINAL, Outcome.OK]
    assert replies[1].state is State.CANCELLED
    assert bench.queue.append([]) == []


def test_a_repeat_is_dropped(bench: Bench, job: Job) -> None:
    append(bench, job.lease, delta(0, (1, 2, 3)), delta(3, (4, 5)))
    for again in (delta(0, (1, 2, 3)), delta(3, (4, 5)), delta(1, (2, 3, 4)), delta(2, ())):
        reply = append(bench, job.lease, again)
        assert (reply.outcome, reply.seq, reply.diverged) == (Outcome.OK, 4, False)


def test_a_repeat_with_other_ids_is_an_alarm(bench: Bench, job: Job) -> None:
    append(bench, job.lease, delta(0, (1, 2, 3)))
    reply = append(bench, job.lease, delta(0, (1, 9, 3)))
    assert (reply.outcome, reply.seq, reply.diverged) == (Outcome.OK, 3, True)
    assert bench.events(job.id)[-1] == Delta(3, 0, 0, (1, 2, 3))


@pytest.mark.parametrize("offset", [4, 2, 1])
def test_what_starts_above_or_straddles_is_a_gap(bench: Bench, job: Job, offset: int) -> None:
    append(bench, job.lease, delta(0, (1, 2, 3)))
    reply = append(bench, job.lease, delta(offset, (7, 8, 9)))
    assert (reply.outcome, reply.choice, reply.have, reply.seq) == (Outcome.GAP, 0, 3, 3)
    assert append(bench, job.lease, delta(3, (7, 8))).outcome is Outcome.OK


def test_what_fits_before_a_gap_is_kept(bench: Bench, job: Job) -> None:
    reply = append(bench, job.lease, delta(0, (1,)), delta(5, (2,)), delta(1, (3,)))
    assert (reply.outcome, reply.have) == (Outcome.GAP, 1)
    assert get(bench, job.id).next_offset == (1,)


def test_nothing_follows_a_finish_reason(bench: Bench, job: Job) -> None:
    append(bench, job.lease, delta(0, (1, 2), "stop"))
    reply = append(bench, job.lease, delta(2, (3,)))
    assert (reply.outcome, reply.diverged) == (Outcome.OK, True)
    again = append(bench, job.lease, delta(0, (1, 2), "stop"))
    assert (again.outcome, again.diverged) == (Outcome.OK, False)
    other = append(bench, job.lease, delta(0, (1, 2), "length"))
    assert (other.outcome, other.diverged) == (Outcome.OK, True)
    assert get(bench, job.id).seq == 3


def test_a_finish_reason_may_come_without_tokens_and_once(bench: Bench, job: Job) -> None:
    append(bench, job.lease, delta(0, (1, 2)))
    for _ in range(2):
        reply = append(bench, job.lease, delta(2, (), "stop"))
        assert (reply.outcome, reply.seq, reply.diverged) == (Outcome.OK, 4, False)


def test_a_finish_reason_on_a_repeat_is_asked_for_again(bench: Bench, job: Job) -> None:
    append(bench, job.lease, delta(0, (1, 2)))
    reply = append(bench, job.lease, delta(0, (1, 2), "stop"))
    assert (reply.outcome, reply.have) == (Outcome.GAP, 2)


def test_an_empty_job_still_has_its_finish_reason(bench: Bench, job: Job) -> None:
    append(bench, job.lease, delta(0, (), "length"))
    assert bench.events(job.id)[-1] == Delta(3, 0, 0, (), finish_reason="length")
    assert get(bench, job.id).first_token_at is None


def test_choices_are_counted_apart(bench: Bench) -> None:
    accept(bench, make_job(n=2))
    mine = claim(bench)
    append(bench, mine.lease, delta(0, (1, 2), choice=1), delta(0, (3,), choice=0))
    assert get(bench, mine.id).next_offset == (1, 2)
    reply = append(bench, mine.lease, delta(3, (4,), choice=1))
    assert (reply.outcome, reply.choice, reply.have) == (Outcome.GAP, 1, 2)
    assert append(bench, mine.lease, delta(0, (1, 2), choice=1)).diverged is False
    assert append(bench, mine.lease, delta(0, (1,), choice=2)).diverged is True


def test_an_old_lease_writes_nothing(bench: Bench, job: Job) -> None:
    append(bench, job.lease, delta(0, (1,)))
    bench.queue.release(job.lease)
    assert append(bench, job.lease, delta(1, (2,))).outcome is Outcome.LOST
    now_mine = claim(bench, "w2")
    assert append(bench, job.lease, delta(1, (2,))).outcome is Outcome.LOST
    assert append(bench, now_mine.lease, delta(1, (3,))).outcome is Outcome.OK
    assert [event.token_ids for event in bench.events(job.id) if isinstance(event, Delta)] == [(1,), (3,)]


def test_the_next_attempt_resumes(bench: Bench, job: Job) -> None:
    append(bench, job.lease, delta(0, (1, 2)))
    bench.queue.release(job.lease)
    append(bench, claim(bench, "w2").lease)
    assert bench.events(job.id)[-1] == Resumed(4, 2, "w2", (2,), exact=True)


def test_a_resume_after_another_digest_is_not_exact(bench: Bench, job: Job) -> None:
    append(bench, job.lease)
    bench.queue.release(job.lease)
    second = claim(bench, "w2", digest="d2")
    append(bench, second.lease)
    assert bench.events(job.id)[-1] == Resumed(3, 2, "w2", (0,), exact=False)
    bench.queue.release(second.lease)
    append(bench, claim(bench, "w3", digest="d1").lease)
    assert bench.events(job.id)[-1] == Resumed(4, 3, "w3", (0,), exact=False)
    assert get(bench, job.id).digests == ("d1", "d2")


def test_an_attempt_that_never_began_leaves_no_trace(bench: Bench, job: Job) -> None:
    bench.queue.release(job.lease)
    append(bench, claim(bench, "w2").lease)
    assert types(bench, job.id) == ["accepted", "started"]
    assert get(bench, job.id).attempt == 2


def test_progress_past_a_death_clears_its_count(bench: Bench, job: Job) -> None:
    append(bench, job.lease, delta(0, (1, 2, 3)))
    bench.queue.reap(ReapRequest(worker="w1", died=True))
    mine = claim(bench, "w2")
    assert (mine.deaths, mine.deaths_total, mine.death_offset) == (1, 1, 3)
    append(bench, mine.lease, delta(3, tuple(range(15))))
    assert get(bench, job.id).deaths == 1
    append(bench, mine.lease, delta(18, (1,)))
    assert (get(bench, job.id).deaths, get(bench, job.id).deaths_total) == (0, 1)


ENTRIES = tuple(TokenLogprobs(-0.5 - place, ((place, -0.5 - place), (9, -7.25))) for place in range(3))
PROMPT = (None, TokenLogprobs(-1.0), TokenLogprobs(-2.0, ((1, -0.125),)))


def test_log_probabilities_are_kept_with_their_ids(bench: Bench, job: Job) -> None:
    first = replace(delta(0, (5, 6)), logprobs=ENTRIES[:2], prompt_logprobs=PROMPT)
    last = replace(delta(2, (7,), "stop"), logprobs=ENTRIES[2:])
    append(bench, job.lease, first, last)
    assert bench.events(job.id)[-2:] == [replace(first, seq=3, text=""), replace(last, seq=4, text="")]


def test_repeats_are_told_by_their_ids_alone(bench: Bench, job: Job) -> None:
    whole = replace(delta(0, (5, 6)), logprobs=ENTRIES[:2], prompt_logprobs=PROMPT)
    append(bench, job.lease, whole)
    for again in (whole, delta(0, (5, 6)), replace(delta(1, (6,)), logprobs=ENTRIES[2:])):
        reply = append(bench, job.lease, again)
        assert (reply.outcome, reply.seq, reply.diverged) == (Outcome.OK, 3, False)
    straddling = replace(delta(1, (6, 7)), logprobs=ENTRIES[1:])
    assert append(bench, job.lease, straddling).outcome is Outcome.GAP
    assert bench.events(job.id)[-1] == replace(whole, seq=3, text="")


def test_a_prompt_alone_has_log_probabilities_and_no_tokens(bench: Bench) -> None:
    accept(bench, make_job(prompt=3, max_tokens=0))
    mine = claim(bench)
    assert mine.kv_tokens == 3
    alone = replace(delta(0, (), "length"), prompt_logprobs=PROMPT)
    for _ in range(2):
        reply = append(bench, mine.lease, alone)
        assert (reply.outcome, reply.seq, reply.diverged) == (Outcome.OK, 3, False)
    assert bench.events(mine.id)[-1] == replace(alone, seq=3, text="")
    choice = Choice(0, (), "length", (), PROMPT)
    assert bench.queue.finish(mine.lease, Ending(State.SUCCEEDED, Usage(3), (choice,))).outcome is Outcome.OK
    assert bench.result(mine.id) == (choice,)
    # It says nothing about what others will generate.
    other = make_job(prompt=3, max_tokens=1000)
    accept(bench, other)
    assert get(bench, other.id).kv_tokens == 3 + 256
