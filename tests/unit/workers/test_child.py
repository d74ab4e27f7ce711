"""The child's loop, with the fake engine on one side and a real pipe on the other."""

import multiprocessing
import queue
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from threading import Thread

import pytest

from headrace.contract.generation import Sampling
from workers.inference import child
from workers.inference.child import serve
from workers.inference.fake_engine import FakeEngine, Knobs, token_at
from workers.inference.messages import AbortAll, AbortRequests, AddRequest, Command, Output, Stepped, StepStats, Stop

Say = Callable[[Command], None]


@contextmanager
def serving(knobs: Knobs) -> Iterator[tuple[Say, Connection]]:
    """A child's loop in a thread: what is said to it, and the pipe it reports on."""
    here, there = multiprocessing.Pipe()
    commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
    thread = Thread(target=serve, args=(FakeEngine(knobs), there, commands))
    thread.start()
    try:
        yield commands.put, here
    finally:
        commands.put(Stop())
        while thread.is_alive():
            # It may be waiting for somebody to read.
            if here.poll(0.01):
                here.recv()
        thread.join(5)
        here.close()
        there.close()


class Leaking(FakeEngine):
    """One that lost something while it worked."""

    def check_integrity(self) -> None:
        raise AssertionError("pages are missing")


def test_an_idle_engine_is_looked_over_and_dies_of_what_it_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "_QUIET_S", 0.01)
    here, there = multiprocessing.Pipe()
    commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
    commands.put(request("a", 1))
    with pytest.raises(AssertionError, match="missing"):
        serve(Leaking(Knobs()), there, commands)
    assert receive(here).outputs[0].finish_reason == "length"


def request(name: str, max_tokens: int, token_ids: tuple[int, ...] = ()) -> AddRequest:
    return AddRequest(name, (1, 2), Sampling(seed=3), 0, max_tokens, token_ids)


def receive(pipe: Connection) -> Stepped:
    assert pipe.poll(5), "nothing was reported"
    report = pipe.recv()
    assert isinstance(report, Stepped)
    return report


def test_a_request_runs_to_its_end_and_then_nothing_is_said() -> None:
    with serving(Knobs()) as (say, pipe):
        asked = request("a", 3)
        say(asked)
        outputs = [receive(pipe).outputs[0] for _ in range(3)]
        assert [output.token_ids for output in outputs] == [(token_at(asked, offset),) for offset in range(3)]
        assert [output.finish_reason for output in outputs] == [None, None, "length"]
        assert not pipe.poll(0.05)


def test_a_resumed_request_goes_on_at_its_offset() -> None:
    with serving(Knobs()) as (say, pipe):
        asked = request("a", 3, (7, 8))
        say(asked)
        assert receive(pipe).outputs == (Output("a", 2, (token_at(asked, 2),), "length"),)


def test_a_refused_request_is_told_and_harms_no_other() -> None:
    with serving(Knobs(context_length=10)) as (say, pipe):
        say(request("long", 100))
        refusal = receive(pipe)
        assert refusal.stats is None
        assert refusal.outputs[0].error is not None
        assert refusal.outputs[0].error.code == "context_length_exceeded"
        say(request("fine", 1))
        assert receive(pipe).outputs[0].finish_reason == "length"


def test_what_is_aborted_is_not_stepped() -> None:
    with serving(Knobs(speed=100)) as (say, pipe):
        for name in ("a", "b", "c"):
            say(request(name, 1000))
        say(AbortRequests(("a", "unknown")))
        while {output.request_id for output in receive(pipe).outputs} != {"b", "c"}:
            pass
        say(AbortAll())
        while (report := receive(pipe)).outputs:
            pass
        assert report.stats == StepStats(kv_pages=8192 // 16, kv_pages_used=0)
        say(request("d", 1))
        while [output.request_id for output in receive(pipe).outputs] != ["d"]:
            pass
        assert not pipe.poll(0.05)
