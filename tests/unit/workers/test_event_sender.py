"""The sender when the broker is not there."""

import time

from headrace.settings import RedisSettings
from tests.integration.workers.fleet import eventually
from tests.unit.workers.jobs import make_job
from workers.celery_app import make_app
from workers.console.event_sender import EventSender
from workers.inference.facts import Claimed, Delivered


def test_without_a_broker_events_are_dropped_and_nobody_waits() -> None:
    sender = EventSender(room=3)
    app = make_app(RedisSettings(url="unix:///nowhere/r.sock"))
    for number in range(5):
        sender.tell(Claimed(make_job(f"job_{number}")))
        sender.tell(Delivered(make_job(f"job_{number}"), 8, True))
    assert sender.dropped == 2
    sender.start(app, "headrace@w_test")
    eventually(lambda: sender.dropped == 5, "what waited is dropped too")
    began = time.monotonic()
    sender.stop(10.0)
    assert not sender.sending
    assert time.monotonic() - began < 5
