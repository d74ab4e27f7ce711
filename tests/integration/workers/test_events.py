"""Task events on a real broker, and on one that was away for a while."""

import threading
from typing import Any

from celery import Celery

from headrace.settings import RedisSettings
from tests.integration.workers.fleet import Fleet, eventually
from tests.unit.workers.jobs import make_job
from workers.celery_app import make_app
from workers.console.event_sender import EventSender
from workers.inference.facts import Claimed


def receive(app: Celery, heard: list[dict[str, Any]], enough: threading.Event) -> None:
    """Write down what comes, until it is enough."""
    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": heard.append})
        for _ in receiver.consume(limit=None, timeout=0.2, safety_interval=0):
            if enough.is_set():
                return


def test_events_flow_again_after_an_outage(own_fleet: Fleet) -> None:
    app = make_app(RedisSettings(url=own_fleet.server.url, socket_timeout_s=1.0, connect_timeout_s=1.0))
    sender, numbers = EventSender(), iter(range(10_000))
    sender.start(app, "headrace@w_test")

    def tell() -> str:
        job_id = f"job_{next(numbers)}"
        sender.tell(Claimed(make_job(job_id)))
        return job_id

    def told_until_heard() -> list[dict[str, Any]]:
        heard: list[dict[str, Any]] = []
        enough = threading.Event()
        listener = threading.Thread(target=receive, args=(app, heard, enough))
        listener.start()
        try:
            return eventually(lambda: (tell(), heard)[1], "events", 20.0)
        finally:
            enough.set()
            listener.join(10)

    assert told_until_heard()[0]["hostname"] == "headrace@w_test"
    own_fleet.server.kill()
    eventually(lambda: (tell(), sender.dropped)[1], "events dropped", 20.0)
    own_fleet.server.start()
    event = told_until_heard()[0]
    assert (event["type"], event["name"]) == ("task-received", "headrace.job.completion")
    sender.stop(5.0)
    assert not sender.sending
    app.close()
