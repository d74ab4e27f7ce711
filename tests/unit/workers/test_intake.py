"""How much a worker claims."""

from collections.abc import Callable
from dataclasses import replace
from itertools import permutations

import pytest

from headrace.contract.job import Job, State
from headrace.queue.base import ClaimRequest
from headrace.queue.memory import MemoryQueue
from headrace.store.journal import Journaled
from headrace.telemetry.metrics import Recorder
from tests.unit.workers.desk import READY
from tests.unit.workers.jobs import make_job
from workers.inference.holdings import Holdings, Load
from workers.inference.inbox import Inbox
from workers.inference.intake import MICRO_BATCH, NO_ROOM, PACE_S, Intake, IntakeParts, Pauser, Room, room


@pytest.mark.parametrize(
    ("load", "expected"),
    [
        (Load(), Room(MICRO_BATCH, 1000)),
        (Load(jobs=30, kv_tokens=300), Room(2, 700)),
        (Load(jobs=32, kv_tokens=300), NO_ROOM),
        (Load(jobs=3, kv_tokens=1000), NO_ROOM),
        (Load(jobs=3, kv_tokens=1200), NO_ROOM),
        (Load(jobs=1, kv_tokens=10, solo=True), NO_ROOM),
    ],
)
def test_room(load: Load, expected: Room) -> None:
    assert room(load, capacity=1000, max_jobs=32) == expected


def make_intake(queue: MemoryQueue, holdings: Holdings, pause: Callable[[float], None]) -> Intake:
    parts = IntakeParts(
        worker="w_test",
        lane="m@stable",
        max_jobs=8,
        queue=queue,
        read_journal=lambda job: (Journaled(),),
        holdings=holdings,
        metrics=Recorder(),
        inbox=Inbox(),
        pause=pause,
    )
    intake = Intake(parts)
    intake.open(replace(READY, facts=replace(READY.facts, revision="r")))
    return intake


def test_while_paused_nothing_is_claimed() -> None:
    queue = MemoryQueue(lambda: 1000)
    intake = make_intake(queue, Holdings(on_room=lambda: None), lambda _: None)
    queue.accept(make_job("job_1", state=State.ACCEPTED, lease_id="", epoch=0))
    intake.pause(True, Pauser.PERSON)
    assert intake.paused
    assert intake.claim() == 0
    intake.pause(False, Pauser.PERSON)
    assert intake.claim() == 1


@pytest.mark.parametrize(("first", "second"), list(permutations(Pauser, 2)))
def test_what_one_takes_back_does_not_speak_for_the_other(first: Pauser, second: Pauser) -> None:
    queue = MemoryQueue(lambda: 1000)
    intake = make_intake(queue, Holdings(on_room=lambda: None), lambda _: None)
    queue.accept(make_job("job_1", state=State.ACCEPTED, lease_id="", epoch=0))
    for _ in range(2):  # said twice it is taken back once
        intake.pause(True, first)
    intake.pause(True, second)
    intake.pause(False, first)
    assert (intake.paused, intake.claim()) == (True, 0)
    intake.pause(False, second)
    assert (intake.paused, intake.claim()) == (False, 1)


class Looks(MemoryQueue):
    """Counts the claims; the intake is stopped at one of them."""

    def __init__(self, last: int) -> None:
        super().__init__(lambda: 1000)
        self.claims, self._last = 0, last
        self.intake: Intake | None = None

    def claim(self, request: ClaimRequest) -> tuple[Job, ...]:
        self.claims += 1
        assert self.intake is not None
        self.intake.wake()  # somebody submits all the time
        if self.claims == self._last:
            self.intake.stop()
        return super().claim(request)


@pytest.mark.parametrize(("jobs", "pauses"), [(0, []), (1, [PACE_S] * 4)])
def test_what_comes_while_jobs_run_is_claimed_together(jobs: int, pauses: list[float]) -> None:
    paused: list[float] = []
    holdings = Holdings(on_room=lambda: None)
    holdings.take([make_job(f"job_{number}") for number in range(jobs)])
    queue = Looks(last=4)
    queue.intake = make_intake(queue, holdings, paused.append)
    queue.intake.run()
    assert paused == pauses
