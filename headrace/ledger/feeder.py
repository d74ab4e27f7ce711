"""The feeder: takes messages from the ledger into the fleet, and out of the ledger once their jobs are done.

Knows which half runs in which thread, and what to do while one side is away: wait, hold on, say it once.
"""

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

import structlog

from headrace.contract.errors import LedgerUnavailable, StoreUnavailable
from headrace.ledger.adopter import Adopter
from headrace.ledger.base import Ledger
from headrace.ledger.fleet_jobs import FleetJobs
from headrace.ledger.holder import Holder, News, Verdicts
from headrace.ledger.republisher import Republisher
from headrace.settings import LedgerSettings
from headrace.store.blobs import BlobStore

POLL_S = 1.0
"""The longest wait for messages, and so for a lease or an end of this process to be seen to."""
AGAIN_S = 1.0
JOIN_S = 0.5

log = structlog.get_logger(__name__)


class Feeder:
    """`run` until `stop` is set. The halves may be turned by hand instead, from one thread."""

    def __init__(
        self, ledger: Ledger, jobs: FleetJobs, blobs: BlobStore, settings: LedgerSettings, *, threads: int = 1
    ) -> None:
        """`threads` see to messages at once; see `Adopter`."""
        news: News = SimpleQueue()
        verdicts: Verdicts = SimpleQueue()
        self.stop = threading.Event()
        self.holder = Holder(ledger, settings.window, news, verdicts)
        self.adopter = Adopter(jobs, blobs, news, verdicts, threads=threads)
        self.republisher = Republisher(jobs, ledger, blobs, settings.accepted_s)
        self._ledger = ledger
        self._settings = settings

    def check(self) -> None:
        """Until the ledger has answered whether it is fit, or it is time to stop. Raises SetupError."""
        outage = _Outage("ledger")
        while not self.stop.is_set():
            try:
                for warning in self._ledger.check():
                    log.warning("ledger is unfit", reason=warning)
                return
            except LedgerUnavailable as error:
                outage.say(error)
                self.stop.wait(AGAIN_S)

    def run(self) -> None:
        """Both halves until `stop` is set; then every message is given back."""
        store_side = threading.Thread(target=self._face_store, name="feeder-store", daemon=True)
        store_side.start()
        try:
            self._face_broker()
        finally:
            self.stop.set()
            self._leave()
        store_side.join(JOIN_S)
        self.adopter.close()

    def _leave(self) -> None:
        try:
            self.holder.give_all_back()
        except LedgerUnavailable:
            pass  # a broker that is away finds out by itself
        except Exception:
            log.exception("feeder could not give back", messages=self.holder.held)
        self._ledger.close()

    def _face_broker(self) -> None:
        outage = _Outage("ledger")
        while not self.stop.is_set():
            try:
                came = self.holder.turn(POLL_S)
                outage.over()
                if not came and self.holder.held >= self._settings.window:
                    self.stop.wait(self._settings.look_s)  # nothing is polled while there is no room
            except LedgerUnavailable as error:
                outage.say(error)
                self.stop.wait(AGAIN_S)
            except Exception:
                # Whatever it was, leases must go on being extended.
                log.exception("feeder turn failed", side="ledger")
                self.stop.wait(AGAIN_S)

    def _face_store(self) -> None:
        store, ledger, publish_at = _Outage("store"), _Outage("ledger, for publishing"), 0.0
        while not self.stop.is_set():
            self._turn(self.adopter.turn, store)
            if time.monotonic() >= publish_at:
                publish_at = time.monotonic() + self._settings.accepted_s / 3
                self._turn(self.republisher.turn, ledger)
            self.stop.wait(self._settings.look_s)

    def _turn(self, turn: Callable[[], object], outage: "_Outage") -> None:
        try:
            turn()
            outage.over()
        except StoreUnavailable as error:
            outage.say(error)
        except Exception:
            if not self.stop.is_set():  # else it was cut off on purpose
                log.exception("feeder turn failed", side="store")


class _Outage:
    """Says that one side is away, once."""

    def __init__(self, side: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._side = side
        self._clock = clock
        self._since: float | None = None

    def say(self, error: StoreUnavailable) -> None:
        if self._since is None:
            self._since = self._clock()
            log.warning("feeder side away", side=self._side, reason=error.message)

    def over(self) -> None:
        if self._since is not None:
            log.info("feeder side back", side=self._side, seconds=round(self._clock() - self._since, 1))
            self._since = None
