"""The autoscaler on a real store: what it reads, how soon it hears, what it does when the store goes."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from headrace.autoscaler.decision import Limits, Load, Phase, Worker
from headrace.autoscaler.loop import Autoscaler, SignalThread
from headrace.autoscaler.scaler import Member
from headrace.autoscaler.signals import Reading, SignalReader, signals_of
from headrace.queue.base import ClaimRequest
from headrace.store import depth
from headrace.store.beats import Beat, write_beat
from headrace.store.connection import connect
from tests.integration.workers.fleet import Fleet, eventually
from tests.redis_server import RedisServer

LANE, OTHER = "a@stable", "b@stable"


def beat(worker: str, state: str = "ready", lane: str = LANE) -> Beat:
    return Beat(worker, lane, state, "r")


def claim(fleet: Fleet, worker: str, jobs: int) -> None:
    claimed = fleet.queue.claim(ClaimRequest((LANE,), worker, "r", "d", 10_000, 10_000, jobs))
    assert len(claimed) == jobs


def test_a_reading_counts_what_waits_and_what_is_held(fleet: Fleet) -> None:
    for number in range(5):
        fleet.submit_to(LANE, "r", "four", max_tokens=10 + number)
    fleet.submit_to(OTHER, "r")
    write_beat(fleet.client, beat("w_1"))
    write_beat(fleet.client, beat("w_2", lane=OTHER))
    claim(fleet, "w_1", 2)
    readings = SignalReader(fleet.client, [LANE, OTHER]).read(7.0)
    assert readings[LANE].load == Load(7.0, 3, 3 * 4 + 12 + 13 + 14, 2, 2 * 4 + 10 + 11)
    assert readings[LANE].held_by == {"w_1": 2}
    assert (readings[OTHER].load.queued_jobs, list(readings[OTHER].beats)) == (1, ["w_2"])


def test_the_tokens_of_a_long_queue_are_extrapolated(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(depth, "SAMPLE", 3)
    for _ in range(10):
        fleet.submit_to(LANE, "r", "four", max_tokens=6)
    assert depth.read_depth(fleet.client, LANE, []).queued == depth.Work(10, 100.0)


def test_members_and_beats_together() -> None:
    reading = Reading(
        1.0,
        Load(1.0),
        {name: beat(name, state) for name, state in {"r": "ready", "p": "paused", "o": "ready", "l": "ready"}.items()},
        {"r": 2, "p": 1},
    )
    members = [
        Member("ready", "r", crashing=True),
        Member("paused", "p"),
        Member("leaving", "l", leaving=True),
        Member("silent", "s"),
        Member("young", "y"),
        Member("crashing", "", crashing=True),
    ]
    signals = signals_of(reading, members, {"s"})
    assert [(worker.name, worker.held) for worker in signals.workers if worker.held] == [("ready", 2), ("paused", 1)]
    assert [worker.phase for worker in signals.workers] == [
        Phase.READY,
        Phase.PAUSED,
        Phase.LEAVING,
        Phase.SILENT,
        Phase.STARTING,
        Phase.CRASHING,
    ]
    assert signals.load is not None
    assert signals.load.others == 1
    assert signals_of(None, members[:1], {"r"}).workers == (Worker("ready", Phase.SILENT),)


class Crew:
    """A scaler whose workers are beats that the test writes."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.drained: list[str] = []
        self.started = threading.Event()

    def members(self, lane: str) -> Sequence[Member]:
        return [Member(name, name) for name in self.names]

    def start(self, lane: str, count: int) -> None:
        self.names += [f"w_{len(self.names) + 1}" for _ in range(count)]
        self.started.set()

    def drain(self, lane: str, names: Sequence[str]) -> None:
        self.drained += names
        self.names = [name for name in self.names if name not in names]


@contextmanager
def signals_from(server: RedisServer, look_s: float) -> Iterator[SignalThread]:
    said: list[str] = []
    thread = SignalThread(lambda: connect(server.url, socket_timeout_s=0.5), (LANE,), look_s, said.append)
    thread.start()
    try:
        eventually(lambda: thread.latest(LANE), "a first reading")
        yield thread
    finally:
        thread.stop()
    assert not said


def test_it_hears_of_work_and_does_not_wait_for_the_next_look(fleet: Fleet) -> None:
    crew, said = Crew(), list[str]()
    with signals_from(fleet.server, look_s=60) as signals:
        scaler = Autoscaler(crew, signals, Limits(0, 2, stale_s=600), said.append)
        eventually(lambda: fleet.client.pubsub_numsub(f"hr:wake:{LANE}")[0][1], "a subscription")
        scaler.look((LANE,), time.monotonic())
        assert not crew.names
        signals.news.clear()
        fleet.submit_to(LANE, "r")
        assert signals.news.wait(30), "no news before the next look"
        scaler.look((LANE,), time.monotonic())
        scaler.look((LANE,), time.monotonic())
    assert crew.names == ["w_1"], "one start for one backlog"
    assert said == [f"{LANE}: 0 → 1 workers (1 jobs of about 37 tokens wait, at 100 tokens/s a worker)"]


def test_a_store_that_goes_and_comes_back_changes_nothing(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "r")
    server.start()
    fleet, crew, said = Fleet(server), Crew(), list[str]()
    crew.names = ["w_1", "w_2"]
    limits = Limits(0, 4, idle_s=0.3, patience_s=0.0, stale_s=0.2)
    try:
        for name in crew.names:
            write_beat(fleet.client, beat(name))
        for _ in range(2):
            fleet.submit_to(LANE, "r")
        claim(fleet, "w_1", 2)
        with signals_from(server, look_s=0.05) as signals:
            scaler = Autoscaler(crew, signals, limits, said.append)
            server.kill()
            eventually(lambda: time.monotonic() - signals.latest(LANE).at > 0.6, "an old reading")  # type: ignore[union-attr]
            for _ in range(3):
                scaler.look((LANE,), time.monotonic())
            assert (crew.names, crew.drained) == (["w_1", "w_2"], [])
            server.start()
            write_beat(fleet.client, beat("w_1"))

            def drained() -> bool:
                scaler.look((LANE,), time.monotonic())
                return bool(crew.drained)

            eventually(drained, "the one that holds nothing is drained")
            assert crew.drained == ["w_2"]
    finally:
        fleet.client.close()
        server.stop()
