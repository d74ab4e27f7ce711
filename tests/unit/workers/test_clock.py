"""The schedule's clock on a host whose time of day goes back."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from celery import Celery
from celery.beat import ScheduleEntry
from celery.schedules import schedule

from workers.maintenance.clock import Clock


@pytest.mark.parametrize(
    ("rang_ago_s", "due"), [(11, True), (4, False), (-3600, False)], ids=["due", "not due", "rang in an hour's time"]
)
def test_it_rings_again_within_its_interval(tmp_path: Path, rang_ago_s: int, due: bool) -> None:
    app = Celery(set_as_current=False)
    clock = Clock(app, schedule_filename=str(tmp_path / "schedule"), lazy=True)
    rang_at = datetime.now(UTC) - timedelta(seconds=rang_ago_s)
    entry = ScheduleEntry("sweep", "sweep", rang_at, schedule=schedule(10.0, app=app), app=app)
    is_due, next_s = clock.is_due(entry)
    assert is_due is due
    assert next_s <= 10.0
