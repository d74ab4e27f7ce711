"""The clock of the schedule, as Celery's beat runs it. Knows where its file lies and whose process it is part of."""

import os
import threading
from pathlib import Path
from typing import Any

from celery.beat import PersistentScheduler

LOOK_S = 1.0


class Clock(PersistentScheduler):  # type: ignore[misc]
    """Celery's own, with its file in a folder that need not be there yet, and for a time of day that may go back."""

    def setup_schedule(self) -> None:
        Path(self.schedule_filename).parent.mkdir(parents=True, exist_ok=True)
        super().setup_schedule()

    def is_due(self, entry: Any) -> Any:
        """Whether, and how many seconds until the next look. Celery counts from the last ring by the time of day: on a
        host whose clock was set back by an hour nothing would ring for an hour."""
        entry.last_run_at = min(entry.last_run_at, entry.default_now())
        return super().is_due(entry)


def end_with_parent(**_: Any) -> None:
    """A clock in a worker's child process ends when that worker was killed; it would ring for ever otherwise."""
    parent = os.getppid()
    gone = threading.Event()

    def watch() -> None:
        while os.getppid() == parent:
            gone.wait(LOOK_S)
        os._exit(0)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
