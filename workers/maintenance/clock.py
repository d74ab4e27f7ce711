"""The clock of the schedule, as Celery's beat runs it. Knows where its file lies and whose process it is part of."""

import os
import threading
from pathlib import Path
from typing import Any

from celery.beat import PersistentScheduler

LOOK_S = 1.0


class Clock(PersistentScheduler):  # type: ignore[misc]
    """Celery's own, with its file in a folder that need not be there yet."""

    def setup_schedule(self) -> None:
        Path(self.schedule_filename).parent.mkdir(parents=True, exist_ok=True)
        super().setup_schedule()


def end_with_parent(**_: Any) -> None:
    """A clock in a worker's child process ends when that worker was killed; it would ring for ever otherwise."""
    parent = os.getppid()
    gone = threading.Event()

    def watch() -> None:
        while os.getppid() == parent:
            gone.wait(LOOK_S)
        os._exit(0)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
