"""The only writer of journals, told by hand what happens and when."""

import threading
from dataclasses import replace

import pytest

from headrace.contract.errors import ErrorInfo
from headrace.contract.events import Completed, Delta
from headrace.contract.generation import TokenLogprobs, Usage
from headrace.contract.job import JobClass, State
from headrace.queue.base import Append, ReapRequest
from headrace.store.journal import Journaled
from tests.unit.workers.desk import LARGE, Desk, request_id
from tests.unit.workers.jobs import make_job
from workers.inference.facts import Why
from workers.inference.holdings import Load
from workers.inference.inbox import Answered, Close, Drain, Drop, DropAll, EngineDown, EngineStepped, Take
from workers.inference.messages import AbortAll, AbortRequests, AddRequest, Output, Stepped, StepStats
from workers.inference.settling import BLOB_PAUSE_S


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_a_job_begins_at_once_and_goes_to_the_engine(desk: Desk) -> None:
    job = desk.take()
    assert desk.state(job) is State.RUNNING
    assert [event.type for event in desk.events(job)] == ["accepted", "started"]
    assert desk.commands == [AddRequest(request_id(job), tuple(b"hi"), job.request.sampling, 0, 500, priority=1)]


def test_the_engine_hears_how_urgent_a_job_is(desk: Desk) -> None:
    """Its deadline in seconds from the claim: the server's clock and the engine's have nothing in common."""
    desk.take("job_1", job_class=JobClass.INTERACTIVE, deadline_at=2500)
    desk.take("job_2", job_class=JobClass.BATCH)
    heard = [(each.priority, each.deadline_s) for each in desk.commands if isinstance(each, AddRequest)]
    assert heard == [(0, 2.5), (2, None)]


def test_unwatched_tokens_gather_for_a_second_or_to_64(desk: Desk) -> None:
    job = desk.take()
    desk.step(job, "a", 0)
    assert desk.text(job) == "a"
    desk.step(job, "b" * 63, 1)
    desk.turn(0.9)
    assert desk.text(job) == "a"
    desk.turn(0.2)
    assert desk.text(job) == "a" + "b" * 63
    desk.step(job, "c" * 64, 64)
    assert desk.text(job) == "a" + "b" * 63 + "c" * 64


def test_watched_tokens_come_by_eight_or_after_50_ms(desk: Desk) -> None:
    desk.listeners = 1
    job = desk.take()
    desk.step(job, "a", 0)
    desk.step(job, "b" * 7, 1)
    assert desk.text(job) == "a"
    desk.turn(0.06)
    assert desk.text(job) == "abbbbbbb"
    desk.step(job, "c" * 8, 8)
    assert desk.text(job) == "abbbbbbbcccccccc"
    assert "".join(desk.texts) == desk.text(job)


def test_the_due_appends_of_a_step_share_one_round_trip(desk: Desk) -> None:
    jobs = [desk.take(f"job_{index}") for index in range(5)]
    before = desk.queue.round_trips
    outputs = tuple(Output(request_id(job), 0, tuple(b"x")) for job in jobs)
    desk.emitter.handle(EngineStepped(1, Stepped(outputs, StepStats())))
    desk.turn()
    assert desk.queue.round_trips == before + 1
    assert all(desk.text(job) == "x" for job in jobs)


def test_the_last_token_ends_the_job(desk: Desk) -> None:
    job = desk.take()
    desk.step(job, "abc", 0, "length")
    record = desk.record(job)
    assert record.state is State.SUCCEEDED
    assert record.usage is not None
    assert (record.usage.prompt_tokens, record.usage.completion_tokens) == (2, 3)
    assert desk.holdings.load().jobs == 0
    result = desk.queue.result(job.id)
    assert result is not None
    assert (result[0].token_ids, result[0].finish_reason) == (tuple(b"abc"), "length")


def test_a_stop_string_ends_the_job_and_the_request(desk: Desk) -> None:
    job = desk.take(stop=("END",))
    desk.step(job, "some ENDless", 0)
    assert desk.text(job) == "some END"
    assert desk.state(job) is State.SUCCEEDED
    assert AbortRequests((request_id(job),)) in desk.commands
    assert "".join(desk.texts) == "some "


def test_a_job_whose_choices_are_all_journaled_goes_straight_to_its_end(desk: Desk) -> None:
    job = desk.take()
    desk.step(job, "a", 0)
    # The journal takes the last delta, and the worker is gone before it can finish.
    taken = desk.running(job)
    taken.choices[0].push(1, tuple(b"b"), "length", desk.now)
    desk.queue.append([taken.append()])
    desk.queue.release(job.lease)
    desk.emitter.handle(Drop(job.lease, Why.LEASE_LOST))
    desk.commands.clear()
    again = desk.take_again()
    assert desk.commands == []
    assert desk.state(again) is State.SUCCEEDED
    assert desk.text(again) == "ab"


def test_a_resumed_job_goes_on_behind_its_journal(desk: Desk) -> None:
    job = desk.take()
    desk.step(job, "abc", 0)
    desk.emitter.handle(EngineDown(1, died=True))
    desk.engine_up(2)
    desk.turn()
    again = desk.take_again()
    assert desk.commands[-1] == AddRequest(
        request_id(again), tuple(b"hi"), job.request.sampling, 0, 500, tuple(b"abc"), priority=1
    )
    assert desk.events(again)[-1].type == "resumed"


def test_an_epoch_that_a_store_gave_out_twice_does_not_mix_two_attempts(desk: Desk) -> None:
    """It lost its tail and with it a claim; the engine still has a step of the first attempt in hand."""
    job = desk.take()
    desk.step(job, "abc", 0)
    again = replace(job, lease_id="another")
    desk.emitter.handle(Take(again, (Journaled(),)))
    desk.emitter.handle(EngineStepped(1, Stepped((Output(request_id(job), 3, tuple(b"d")),), StepStats())))
    assert desk.commands[-2] == AbortRequests((request_id(job),))
    assert desk.commands[-1] == AddRequest(request_id(again), tuple(b"hi"), job.request.sampling, 0, 500, priority=1)


def test_cached_tokens_of_the_prompt_are_counted_once(desk: Desk) -> None:
    """Every output says them again; and of two choices one may have found what the other had to compute."""
    job = desk.take(n=2)
    first, second = request_id(job), request_id(job, 1)
    desk.hear(Output(first, 0, tuple(b"a"), cached_tokens=1), Output(second, 0, tuple(b"b"), cached_tokens=2))
    desk.hear(Output(first, 1, tuple(b"c"), "length", cached_tokens=1))
    desk.hear(Output(second, 1, tuple(b"d"), "length", cached_tokens=2))
    assert desk.record(job).usage == Usage(2, 4, 1)
    assert desk.events(job)[-1] == Completed(desk.record(job).seq, Usage(2, 4, 1))


@pytest.mark.parametrize(("journaled", "cached"), [("", 2), ("a", 0)])
def test_what_an_earlier_attempt_computed_does_not_count_as_cached(desk: Desk, journaled: str, cached: int) -> None:
    """The second attempt finds the whole prompt; once there are tokens, it may be their attempt that left it there."""
    job = desk.take()
    if journaled:
        desk.hear(Output(request_id(job), 0, tuple(journaled.encode())))
    desk.queue.release(job.lease)
    desk.emitter.handle(Drop(job.lease, Why.LEASE_LOST))
    again = desk.take_again()
    desk.hear(Output(request_id(again), len(journaled), tuple(b"z"), "length", cached_tokens=2))
    assert desk.record(again).usage == Usage(2, len(journaled) + 1, cached)


def test_a_dead_engine_s_jobs_go_back_at_once_and_what_it_made_is_kept(desk: Desk) -> None:
    job = desk.take()
    desk.step(job, "a", 0)
    desk.step(job, "bcd", 1)
    assert desk.text(job) == "a"
    desk.emitter.handle(EngineDown(1, died=True))
    desk.turn()
    assert desk.text(job) == "abcd"
    record = desk.record(job)
    assert (record.state, record.deaths, record.death_offset) == (State.QUEUED, 1, 4)
    assert desk.holdings.load().jobs == 0
    assert not desk.claims()


def test_a_dead_engine_holds_nothing(desk: Desk) -> None:
    """Its successor may have nothing to do for hours, and would be taken for full."""
    desk.take()
    stats = StepStats(running=1, waiting=2, kv_pages_used=3, kv_pages=8)
    desk.emitter.handle(EngineStepped(1, Stepped((), stats)))
    desk.emitter.handle(EngineDown(1, died=True))
    gauges = desk.metrics.snapshot()["gauges"]
    assert [gauges[f"headrace_engine_{name}"] for name in ("running", "waiting", "kv_pages_used")] == [0, 0, 0]


def test_nothing_is_claimed_until_the_dead_engine_s_jobs_are_back(desk: Desk) -> None:
    job = desk.take()
    desk.queue.away = True
    desk.emitter.handle(EngineDown(1, died=True))
    desk.engine_up(2)
    desk.turn(1.0)
    assert not desk.claims()
    desk.queue.away = False
    desk.turn(1.0)
    assert desk.claims()
    assert desk.record(job).deaths == 1


def test_tokens_wait_in_memory_while_the_store_is_away(desk: Desk) -> None:
    job = desk.take()
    desk.queue.away = True
    desk.step(job, "abc", 0)
    desk.step(job, "def", 3, "length")
    assert desk.text(job) == ""
    desk.queue.away = False
    desk.turn(1.0)
    assert desk.text(job) == "abcdef"
    assert desk.state(job) is State.SUCCEEDED


def test_a_result_without_a_place_waits_and_holds_up_no_other(desk: Desk) -> None:
    large, small = desk.take("job_1"), desk.take("job_2")
    desk.queue.no_place = frozenset({large.id})
    desk.step(large, "ab", 0, "stop")
    desk.step(small, "cd", 0, "stop")
    assert (desk.state(large), desk.state(small)) == (State.RUNNING, State.SUCCEEDED)
    assert desk.text(large) == "ab"
    assert desk.holdings.load() == Load(), "it takes no room"
    desk.queue.no_place = frozenset()
    desk.turn(1.0)
    assert desk.state(large) is State.RUNNING
    desk.turn(BLOB_PAUSE_S)
    assert desk.state(large) is State.SUCCEEDED


def test_a_large_result_is_handed_in_beside_everybodys_tokens(desk: Desk) -> None:
    slow, quick = desk.take("job_1"), desk.take("job_2")
    desk.queue.held_up = {slow.id: (free := threading.Event())}
    desk.step(slow, "a" * LARGE, 0, "stop")
    assert desk.state(slow) is State.RUNNING
    desk.step(quick, "cd", 0, "stop")
    assert desk.state(quick) is State.SUCCEEDED
    assert desk.state(slow) is State.RUNNING
    assert desk.holdings.load() == Load(), "it takes no room"
    free.set()
    assert isinstance(desk.inbox.get(10), Answered)
    desk.turn()
    assert desk.state(slow) is State.SUCCEEDED
    assert desk.holdings.load().jobs == 0


def test_a_claim_that_comes_when_there_is_no_engine_goes_back(desk: Desk) -> None:
    desk.emitter.handle(EngineDown(1, died=True))
    desk.turn()
    job = desk.take()
    assert desk.state(job) is State.QUEUED
    assert desk.holdings.load().jobs == 0


def test_a_retryable_error_waits_and_the_tokens_before_it_are_kept(desk: Desk) -> None:
    job = desk.take()
    desk.step(job, "a", 0)
    desk.step(job, "b", 1)
    desk.step(job, "", 2, error=ErrorInfo("engine_error", "boom", retryable=True))
    assert desk.state(job) is State.RETRY_WAIT
    assert desk.text(job) == "ab"
    desk.turn(1.1)
    desk.queue.reap(ReapRequest())
    assert desk.state(job) is State.QUEUED


def test_an_error_that_would_come_again_fails_the_job_and_no_other(desk: Desk) -> None:
    job, other = desk.take("job_1"), desk.take("job_2")
    desk.step(job, "", 0, error=ErrorInfo("grammar_error", "no such rule"))
    desk.step(other, "fine", 0, "stop")
    record = desk.record(job)
    assert record.state is State.FAILED
    assert record.error is not None
    assert record.error.code == "grammar_error"
    assert desk.state(other) is State.SUCCEEDED


def test_a_job_that_cannot_be_begun_fails_and_harms_no_other(desk: Desk) -> None:
    other = desk.take("job_1")
    odd = desk.take("job_2", stop=("",))
    assert desk.state(odd) is State.FAILED
    assert desk.holdings.load().jobs == 1
    desk.step(other, "fine", 0, "stop")
    assert desk.state(other) is State.SUCCEEDED


def test_an_engine_that_lost_count_fails_that_request(desk: Desk) -> None:
    job = desk.take()
    desk.step(job, "far", 7)
    record = desk.record(job)
    assert record.state is State.RETRY_WAIT
    assert AbortRequests((request_id(job),)) in desk.commands


def test_an_engine_that_does_not_step_is_killed_and_its_jobs_are_not_blamed(desk: Desk) -> None:
    job = desk.take()
    desk.step(job, "a", 0)
    desk.turn(29.0)
    assert desk.killed == []
    desk.turn(2.0)
    assert desk.killed == [1]
    desk.turn(1.0)
    assert desk.killed == [1]
    assert desk.state(job) is State.RUNNING


def test_a_worker_that_was_held_still_blames_neither_its_engine_nor_its_jobs(desk: Desk) -> None:
    first, second = desk.take("job_1"), desk.take("job_2")
    desk.hear(Output(request_id(first), 0, tuple(b"a")), Output(request_id(second), 0, tuple(b"a")))
    desk.now += 100.0
    desk.turn()
    assert desk.killed == []
    desk.step(first, "b", 1)
    desk.turn(29.0)
    assert desk.state(second) is State.RUNNING
    assert desk.killed == []
    desk.turn(2.0)
    assert desk.killed == [1]


def test_an_idle_engine_is_left_in_peace(desk: Desk) -> None:
    desk.turn(1000.0)
    assert desk.killed == []
    desk.take()
    desk.turn(1.0)
    assert desk.killed == []


def test_a_request_without_progress_is_taken_back_and_one_that_waits_its_turn_is_not(desk: Desk) -> None:
    stuck, waiting, busy = desk.take("job_1"), desk.take("job_2"), desk.take("job_3")
    desk.emitter.handle(EngineStepped(1, Stepped((), StepStats(scheduled=(request_id(stuck),)))))
    for offset in range(31):
        desk.now += 1.0
        desk.step(busy, "x", offset)
    assert desk.state(stuck) is State.RETRY_WAIT
    error = desk.record(stuck).error
    assert error is not None
    assert error.code == "no_progress"
    assert desk.state(waiting) is State.RUNNING
    assert desk.state(busy) is State.RUNNING


def test_what_is_lost_or_cancelled_leaves_the_engine(desk: Desk) -> None:
    job, cancelled = desk.take("job_1"), desk.take("job_2")
    desk.queue.release(job.lease)
    desk.step(job, "abc", 0)
    assert desk.count("headrace_worker_leases_lost_total") == 1
    desk.queue.cancel(cancelled.id)
    desk.emitter.handle(Drop(cancelled.lease, Why.CANCELLED))
    assert AbortRequests((request_id(job),)) in desk.commands
    assert AbortRequests((request_id(cancelled),)) in desk.commands
    assert desk.holdings.load().jobs == 0
    # What the engine still says of them is not heard.
    desk.step(job, "def", 3)
    assert desk.text(job) == ""


def test_a_drop_for_an_earlier_lease_is_void(desk: Desk) -> None:
    job = desk.take()
    desk.emitter.handle(Drop(make_job(job.id, lease_id="other").lease, Why.LEASE_LOST))
    desk.step(job, "a", 0)
    assert desk.text(job) == "a"


def test_leases_that_cannot_be_trusted_stop_everything_without_a_word(desk: Desk) -> None:
    job = desk.take()
    desk.step(job, "a", 0)
    desk.step(job, "b", 1)
    desk.emitter.handle(DropAll(Why.NOT_RENEWED))
    desk.turn(5.0)
    assert desk.text(job) == "a"
    assert desk.state(job) is State.RUNNING
    assert desk.commands[-1] == AbortAll()
    assert desk.holdings.load().jobs == 0


def test_a_drain_journals_everything_and_gives_everything_back_at_once(desk: Desk) -> None:
    job, ended = desk.take("job_1"), desk.take("job_2")
    desk.step(job, "a", 0)
    outputs = (Output(request_id(job), 1, tuple(b"bc")), Output(request_id(ended), 0, tuple(b"end"), "stop"))
    desk.emitter.handle(EngineStepped(1, Stepped(outputs, StepStats())))
    desk.emitter.handle(Drain())
    desk.turn()
    assert desk.text(job) == "abc"
    record = desk.record(job)
    assert (record.state, record.deaths_total, record.retries) == (State.QUEUED, 0, 0)
    assert desk.state(ended) is State.SUCCEEDED
    assert desk.commands[-1] == AbortRequests((request_id(job),))
    desk.hear(Output(request_id(job), 3, tuple(b"d")))  # the step in hand: nobody's any more
    assert desk.text(job) == "abc"
    assert not desk.ended()
    desk.emitter.handle(Close())
    desk.turn()
    assert desk.ended()


def test_what_a_claim_on_its_way_brings_to_a_drain_goes_back_too(desk: Desk) -> None:
    desk.emitter.handle(Drain())
    desk.turn()
    late = desk.take()
    assert (desk.state(late), desk.record(late).deaths_total) == (State.QUEUED, 0)
    assert desk.holdings.load().jobs == 0
    assert desk.commands == []


def test_a_drain_asks_a_store_that_is_away_again_until_it_is_told_to_give_up(desk: Desk) -> None:
    back, left = desk.take("job_1"), desk.take("job_2")
    desk.queue.away = True
    desk.emitter.handle(Drain())
    desk.turn()
    desk.emitter.handle(Close())
    desk.turn(1.0)
    assert not desk.ended()
    desk.queue.away = False
    desk.turn(1.0)
    assert desk.ended()
    assert [desk.state(job) for job in (back, left)] == [State.QUEUED] * 2


def test_a_drain_that_is_told_to_give_up_tries_once_more(desk: Desk) -> None:
    job = desk.take()
    for message in (Drain(), Close(), Close(at_once=True)):
        desk.inbox.put(message)
    desk.emitter.run()
    assert (desk.ended(), desk.state(job)) == (True, State.QUEUED)


def test_a_drain_without_a_store_ends_all_the_same(desk: Desk) -> None:
    job = desk.take()
    desk.queue.away = True
    for message in (Drain(), Close(), Close(at_once=True)):
        desk.inbox.put(message)
    desk.emitter.run()
    assert (desk.ended(), desk.state(job)) == (True, State.RUNNING)


def test_a_death_that_came_before_the_drain_is_counted(desk: Desk) -> None:
    job = desk.take()
    desk.queue.away = True
    desk.emitter.handle(EngineDown(1, died=True))
    desk.queue.away = False
    desk.emitter.handle(Drain())
    desk.turn(1.0)
    assert (desk.state(job), desk.record(job).deaths) == (State.QUEUED, 1)


def test_a_take_that_is_full_length_already_ends_by_length(desk: Desk) -> None:
    job = desk.take(max_tokens=3)
    desk.step(job, "abc", 0)
    desk.queue.release(job.lease)
    desk.emitter.handle(Drop(job.lease, Why.LEASE_LOST))
    again = desk.take_again()
    desk.turn()
    assert desk.state(again) is State.SUCCEEDED
    assert desk.text(again) == "abc"
    assert not isinstance(desk.commands[-1], AddRequest)


def test_the_first_token_of_a_second_attempt_goes_at_once(desk: Desk) -> None:
    job = desk.take()
    desk.step(job, "ab", 0)
    desk.queue.release(job.lease)
    desk.emitter.handle(Drop(job.lease, Why.LEASE_LOST))
    again = desk.take_again()
    desk.step(again, "c", 2)
    assert desk.text(again) == "abc"
    desk.step(again, "d", 3)
    assert desk.text(again) == "abc"


def test_a_second_attempt_ends_with_the_log_probabilities_of_both(desk: Desk) -> None:
    job = desk.take(logprobs=0)
    desk.step(job, "ab", 0)
    desk.queue.release(job.lease)
    desk.emitter.handle(Drop(job.lease, Why.LEASE_LOST))
    again = desk.take_again()
    command = desk.commands[-1]
    assert isinstance(command, AddRequest)
    assert (command.token_ids, command.logprobs, command.prompt_logprobs) == (tuple(b"ab"), 0, 0)
    desk.step(again, "c", 2, "length")
    (choice,) = desk.queue.result(job.id) or ()
    assert choice.token_ids == tuple(b"abc")
    assert choice.logprobs == tuple(TokenLogprobs(-byte / 8) for byte in b"abc")
    assert choice.prompt_logprobs == (None, TokenLogprobs(-0.5))


def test_tokens_journaled_without_log_probabilities_end_without_any(desk: Desk) -> None:
    """An older worker made them: half of them would be put beside the wrong tokens."""
    job = desk.take(logprobs=0)
    desk.queue.append([Append(job.lease, (Delta(0, 0, 0, tuple(b"ab")),))])
    desk.queue.release(job.lease)
    desk.emitter.handle(Drop(job.lease, Why.LEASE_LOST))
    desk.take_again()
    command = desk.commands[-1]
    assert isinstance(command, AddRequest)
    assert command.logprobs is None


def test_a_job_that_wants_no_token_is_run_for_its_prompt(desk: Desk) -> None:
    job = desk.take(max_tokens=0, logprobs=0)
    command = desk.commands[-1]
    assert isinstance(command, AddRequest)
    assert (command.max_tokens, command.prompt_logprobs) == (0, 0)
    desk.step(job, "", 0, "length")
    record = desk.record(job)
    assert record.state is State.SUCCEEDED
    assert record.usage is not None
    assert record.usage.completion_tokens == 0
    (choice,) = desk.queue.result(job.id) or ()
    assert (choice.token_ids, choice.finish_reason) == ((), "length")
    assert choice.prompt_logprobs == (None, TokenLogprobs(-0.5))
