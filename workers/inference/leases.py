"""Keeps the leases of what this worker holds, and stops it when they cannot be kept (rule 6). Knows no tokens."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

import orjson
import structlog

from headrace.contract.job import Lease
from headrace.queue.base import Queue
from headrace.telemetry.metrics import Recorder
from workers.inference.facts import Why
from workers.inference.holdings import Holdings
from workers.inference.inbox import Drop, DropAll, Inbox

TRUST = 0.8
"""Share of a lease that may pass without a renewal before the worker stops by itself."""

log = structlog.get_logger(__name__)


def strangers(held: tuple[Lease, ...], known: frozenset[Lease], seen_before: frozenset[Lease]) -> frozenset[Lease]:
    """Leases that the server thinks we hold and that we do not know, twice in a row.

    Once may be a claim whose answer is still on its way; twice is a claim whose answer was lost.
    """
    return (frozenset(held) - known) & seen_before


@dataclass(frozen=True, slots=True)
class LeaseParts:
    """`stop_engine` frees everything in the engine at once; `trust` tells intake whether to go on."""

    worker: str
    lease_s: float
    queue: Queue
    holdings: Holdings
    metrics: Recorder
    inbox: Inbox
    stop_engine: Callable[[], None]
    trust: Callable[[bool], None]
    clock: Callable[[], float]


class Leases:
    """`renew` and `watch` are called by two clocks, so that a renewal that hangs does not hide how late it is."""

    def __init__(self, parts: LeaseParts) -> None:
        self._parts = parts
        self._lock = threading.Lock()
        self._renewed_at = parts.clock()
        self._stopped = False
        self._unknown: frozenset[Lease] = frozenset()

    def renew(self) -> None:
        """One renewal of everything held. Raises StoreUnavailable."""
        parts = self._parts
        began = parts.clock()
        leases = parts.holdings.leases()
        reply = parts.queue.renew(parts.worker, leases)
        with self._lock:
            self._renewed_at = began
            back, self._stopped = self._stopped, False
        if back:
            log.info("leases can be renewed again")
            parts.trust(True)
        by_job = {lease.job_id: lease for lease in leases}
        for job_id in reply.gone:
            if parts.holdings.find(job_id) == by_job[job_id]:
                parts.metrics.add("headrace_worker_leases_lost_total")
                parts.inbox.put(Drop(by_job[job_id], Why.LEASE_LOST))
        self._give_back_strangers(reply.held)

    def watch(self) -> None:
        """Stop by ourselves when the leases may be another's by now."""
        parts = self._parts
        with self._lock:
            late = parts.clock() - self._renewed_at > TRUST * parts.lease_s
            if not late or self._stopped:
                return
            self._stopped = True
        log.error("no renewal for most of a lease, stopping all work", lease_s=parts.lease_s)
        parts.trust(False)
        parts.stop_engine()
        parts.inbox.put(DropAll(Why.NOT_RENEWED))

    def _give_back_strangers(self, held: tuple[Lease, ...]) -> None:
        known = frozenset(self._parts.holdings.leases())
        for lease in strangers(held, known, self._unknown):
            log.warning("a claim whose answer was lost goes back", job=lease.job_id)
            self._parts.queue.release(lease)
        self._unknown = frozenset(held) - known


class Control:
    """What comes over the worker's control channel. Anyone may publish there: what is not understood is left alone."""

    def __init__(self, holdings: Holdings, inbox: Inbox, drain: Callable[[], None]) -> None:
        self._holdings = holdings
        self._inbox = inbox
        self._drain = drain

    def handle(self, data: bytes) -> None:
        try:
            message = orjson.loads(data)
            kind, job_id = message.get("type"), message.get("job")
        except (ValueError, AttributeError):
            log.warning("control message not understood", data=data[:200])
            return
        if kind == "cancel" and isinstance(job_id, str):
            lease = self._holdings.find(job_id)
            if lease is not None:
                self._inbox.put(Drop(lease, Why.CANCELLED))
        elif kind == "drain":
            self._drain()
