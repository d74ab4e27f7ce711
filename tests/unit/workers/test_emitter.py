"""The only writer of journals, told by hand what happens and when: what it writes, and how jobs end here."""

import threading

from headrace.contract.events import Completed
from headrace.contract.generation import TokenLogprobs, Usage
from headrace.contract.job import JobClass, State
from tests.unit.workers.desk import LARGE, Desk, request_id
from workers.inference.holdings import Load
from workers.inference.inbox import Answered, EngineStepped
from workers.inference.messages import AbortRequests, AddRequest, Output, Stepped, StepStats
from workers.inference.settling import BLOB_PAUSE_S


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


def test_cached_tokens_of_the_prompt_are_counted_once(desk: Desk) -> None:
    """Every output says them again; and of two choices one may have found what the other had to compute."""
    job = desk.take(n=2)
    first, second = request_id(job), request_id(job, 1)
    desk.hear(Output(first, 0, tuple(b"a"), cached_tokens=1), Output(second, 0, tuple(b"b"), cached_tokens=2))
    desk.hear(Output(first, 1, tuple(b"c"), "length", cached_tokens=1))
    desk.hear(Output(second, 1, tuple(b"d"), "length", cached_tokens=2))
    assert desk.record(job).usage == Usage(2, 4, 1)
    assert desk.events(job)[-1] == Completed(desk.record(job).seq, Usage(2, 4, 1))


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


def test_a_job_that_cannot_be_begun_fails_and_harms_no_other(desk: Desk) -> None:
    other = desk.take("job_1")
    odd = desk.take("job_2", stop=("",))
    assert desk.state(odd) is State.FAILED
    assert desk.holdings.load().jobs == 1
    desk.step(other, "fine", 0, "stop")
    assert desk.state(other) is State.SUCCEEDED
