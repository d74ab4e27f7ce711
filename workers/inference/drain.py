"""The end of a worker as an ordered story, and the limit on how long it may take. Knows the parts, not their work."""

import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

ENGINE_S = 1.0
"""What the step in hand may still take. Its tokens are nobody's, so an engine that hangs is not waited for either."""

THREAD_S = 2.0
TOO_LATE = 75
"""Exit code of a worker that the watchdog ended: neither a death (1 and signals) nor a refusal to start (3)."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class DrainSteps:
    """Each is called once, in this order; those that take seconds return after so many at the latest."""

    stop_claiming: Callable[[], None]
    hand_back: Callable[[], None]
    ask_engine_to_stop: Callable[[], None]
    await_intake: Callable[[float], None]
    await_emitter: Callable[[float], None]
    stop_engine: Callable[[float], None]
    stop_threads: Callable[[float], None]
    say_goodbye: Callable[[], None]


def drain(steps: DrainSteps, within_s: float) -> None:
    """Every job goes back uncounted, with all its tokens journaled, before anything is waited for.

    The emitter journals what it has heard and gives the jobs back at once. Then comes what takes time: a claim that is
    on its way, whose jobs go back as they arrive; a store that is away, which is asked until `within_s` is nearly over;
    an engine in the middle of a step, whose tokens are nobody's any more. Leases are renewed until the last of them is
    back. The beat goes last: while it is there, nobody takes us for dead.
    """
    began = time.monotonic()
    steps.stop_claiming()
    steps.hand_back()
    steps.ask_engine_to_stop()
    patience_s = max(0.0, within_s - ENGINE_S - 2 * THREAD_S)
    steps.await_intake(patience_s)
    steps.await_emitter(max(0.0, patience_s - (time.monotonic() - began)))
    handed_back_s = time.monotonic() - began
    steps.stop_engine(ENGINE_S)
    steps.stop_threads(THREAD_S)
    steps.say_goodbye()
    log.info("drained", handed_back_s=round(handed_back_s, 3), seconds=round(time.monotonic() - began, 3))


class Watchdog:
    """Ends the process when its end takes too long. Whatever hangs, the leases run out and the jobs go on elsewhere."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._timer: threading.Timer | None = None

    def arm(self, within_s: float) -> None:
        """The process has so many seconds, or what it has at most if that is less."""
        if self._timer is None:
            limit_s = min(self._limit_s, within_s)
            self._timer = threading.Timer(limit_s, self._end, (limit_s,))
            self._timer.daemon = True
            self._timer.start()

    def _end(self, limit_s: float) -> None:
        sys.stderr.write(f"headrace worker: not drained within {limit_s:g} s, ending at once.\n")
        sys.stderr.flush()
        os._exit(TOO_LATE)
