"""The sweeps as Celery's tasks, and the schedule that rings for them. Knows when and for how long, not how."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded

from headrace.contract.errors import HeadraceError
from headrace.settings import Settings
from workers.maintenance.sweeps import Counts, reap, sweep_blobs, trim_index

MAINTENANCE = "maintenance"
LONGEST_S = 600
"""The hard limit of every task of this role, in seconds."""

SPARE_S = 30
STALE_S = 10.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Sweep:
    """`every_s` reads from the settings how often it is due; after `limit_s` it stops where it is."""

    run: Callable[[Settings], Counts]
    every_s: Callable[[Settings], float]
    limit_s: int


SWEEPS: Mapping[str, Sweep] = {
    "reap": Sweep(reap, lambda settings: settings.queue.reap_ms / 1000, 30),
    "trim_index": Sweep(trim_index, lambda settings: settings.maintenance.index_s, 60),
    "sweep_blobs": Sweep(sweep_blobs, lambda settings: settings.maintenance.blobs_s, LONGEST_S - SPARE_S),
}


def task_name(sweep: str) -> str:
    return f"headrace.{MAINTENANCE}.{sweep}"


def add_sweeps(app: Celery, settings: Settings) -> None:
    """Register every sweep with the application and put it on the schedule."""
    schedule: dict[str, Any] = {}
    for name, sweep in SWEEPS.items():
        every_s = sweep.every_s(settings)
        limits = {"soft_time_limit": sweep.limit_s, "time_limit": sweep.limit_s + SPARE_S}
        # No events: one sweep comes round every second, and would fill Flower's list of jobs.
        app.task(_task(name, sweep, settings), name=task_name(name), ignore_result=True, send_events=False, **limits)
        # A ring that was not heard before others followed is as good as never rung: they must not heap up.
        options = {"queue": MAINTENANCE, "expires": max(every_s, STALE_S)}
        schedule[name] = {"task": task_name(name), "schedule": every_s, "options": options}
    app.conf.beat_schedule = schedule


def _task(name: str, sweep: Sweep, settings: Settings) -> Callable[[], None]:
    def run() -> None:
        try:
            counts = sweep.run(settings)
        except (HeadraceError, SoftTimeLimitExceeded) as error:
            # Nothing is owed: the next ring begins anew, and finds less to do.
            log.warning("sweep not finished", sweep=name, reason=getattr(error, "message", "") or repr(error))
            return
        if any(counts.values()):
            log.info("swept", sweep=name, **counts)

    return run
