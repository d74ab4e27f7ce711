"""How the emitter goes on with a job of which there is something in the journal already."""

from dataclasses import replace

import pytest

from headrace.contract.events import Delta
from headrace.contract.generation import TokenLogprobs, Usage
from headrace.contract.job import State
from headrace.queue.base import Append
from headrace.store.journal import Journaled
from tests.unit.workers.desk import Desk, request_id
from workers.inference.facts import Why
from workers.inference.inbox import Drop, EngineDown, EngineStepped, Take
from workers.inference.messages import AbortRequests, AddRequest, Output, Stepped, StepStats


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
