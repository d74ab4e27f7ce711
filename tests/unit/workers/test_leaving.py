"""How jobs leave the emitter unended: lost, cancelled, not to be trusted, or given back by a drain."""

from headrace.contract.job import State
from tests.unit.workers.desk import Desk, request_id
from tests.unit.workers.jobs import make_job
from workers.inference.facts import Why
from workers.inference.inbox import Close, Drain, Drop, DropAll, EngineDown, EngineStepped
from workers.inference.messages import AbortAll, AbortRequests, Output, Stepped, StepStats


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
