"""The end of a worker as an ordered story, and the limit on how long it may take. Knows the parts, not their work."""

import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

STEP_S = 5.0
"""What the step in hand may still take. On a slow machine a full prefill chunk lasts a second or two."""

THREAD_S = 2.0
TOO_LATE = 1

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class DrainSteps:
    """Each is called once, in this order."""

    stop_claiming: Callable[[], None]
    tell_emitter: Callable[[], None]
    stop_engine: Callable[[float], None]
    await_emitter: Callable[[float], None]
    stop_threads: Callable[[float], None]
    say_goodbye: Callable[[], None]


def drain(steps: DrainSteps) -> None:
    """Every job goes back uncounted, with all its tokens journaled.

    Claiming ends first, so that nothing new comes in. The emitter knows before the engine stops that this end is no
    death. The engine finishes the step in hand, whose tokens are then journaled and the leases released. Leases are
    renewed until the last of them is back. The beat goes last: while it is there, nobody takes us for dead.
    """
    began = time.monotonic()
    steps.stop_claiming()
    steps.tell_emitter()
    steps.stop_engine(STEP_S)
    steps.await_emitter(THREAD_S)
    steps.stop_threads(THREAD_S)
    steps.say_goodbye()
    log.info("drained", seconds=round(time.monotonic() - began, 3))


class Watchdog:
    """Ends the process when its end takes too long. Whatever hangs, the leases run out and the jobs go on elsewhere."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._timer: threading.Timer | None = None

    def arm(self) -> None:
        if self._timer is None:
            self._timer = threading.Timer(self._limit_s, self._end)
            self._timer.daemon = True
            self._timer.start()

    def _end(self) -> None:
        sys.stderr.write(f"headrace worker: not drained within {self._limit_s:g} s, ending at once.\n")
        sys.stderr.flush()
        os._exit(TOO_LATE)
