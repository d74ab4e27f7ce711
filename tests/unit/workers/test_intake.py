"""How much a worker claims."""

from dataclasses import replace

import pytest

from headrace.contract.job import State
from headrace.queue.memory import MemoryQueue
from headrace.store.journal import Journaled
from headrace.telemetry.metrics import Recorder
from tests.unit.workers.desk import READY
from tests.unit.workers.jobs import make_job
from workers.inference.holdings import Holdings, Load
from workers.inference.inbox import Inbox
from workers.inference.intake import MICRO_BATCH, NO_ROOM, Intake, IntakeParts, Room, room


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


def test_while_paused_nothing_is_claimed() -> None:
    queue = MemoryQueue(lambda: 1000)
    parts = IntakeParts(
        worker="w_test",
        lane="m@stable",
        max_jobs=8,
        queue=queue,
        read_journal=lambda job: (Journaled(),),
        holdings=Holdings(on_room=lambda: None),
        metrics=Recorder(),
        inbox=Inbox(),
    )
    intake = Intake(parts)
    intake.open(replace(READY, facts=replace(READY.facts, revision="r")))
    queue.accept(make_job("job_1", state=State.ACCEPTED, lease_id="", epoch=0))
    intake.pause(True)
    assert intake.paused
    assert intake.claim() == 0
    intake.pause(False)
    assert intake.claim() == 1
