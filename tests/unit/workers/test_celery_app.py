"""Celery's spelling of things."""

import pytest

from workers.celery_app import broker_url


@pytest.mark.parametrize(
    ("redis_url", "broker"),
    [
        ("redis://h:1/2", "redis://h:1/2"),
        ("rediss://u:p@h:1/2", "rediss://u:p@h:1/2"),
        ("unix:///run/r.sock", "redis+socket:///run/r.sock"),
        ("unix://:secret@/run/r.sock?db=3", "redis+socket://:secret@/run/r.sock?virtual_host=3"),
    ],
)
def test_broker_urls(redis_url: str, broker: str) -> None:
    assert broker_url(redis_url) == broker
