"""The feeder's half that faces the broker: it holds messages within their terms, and knows no job.

What it receives it puts into `news`; what is to become of each it reads from `verdicts`. One thread owns it, and with
it every call to the ledger but `publish`: no Redis that hangs can cost it a lease.
"""

import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from enum import Enum, auto
from queue import Empty, SimpleQueue

import structlog

from headrace.contract.errors import LedgerUnavailable
from headrace.ledger.base import Delivery, Ledger, Terms

log = structlog.get_logger(__name__)


class Verdict(Enum):
    """What is to become of a message."""

    ACK = auto()
    RELEASE = auto()


@dataclass(frozen=True, slots=True)
class Gone:
    """A receipt that is no longer ours: nothing need be done for it."""

    receipt: str


News = SimpleQueue[Delivery | Gone]
Verdicts = SimpleQueue[tuple[str, Verdict]]


@dataclass(frozen=True, slots=True)
class Held:
    """A message, until when it is ours (monotonic seconds), and when that was last extended."""

    delivery: Delivery
    until: float
    extended_at: float


@dataclass(frozen=True, slots=True)
class Chores:
    """What is due: to be forgotten, to be given back, to be extended."""

    expired: tuple[Held, ...]
    hand_over: tuple[Held, ...]
    extend: tuple[Held, ...]


def chores(held: Iterable[Held], acked: Collection[str], terms: Terms, now: float) -> Chores:
    """Of what is held at `now`. What is to be acked is not given back."""
    expired, hand_over, extend = [], [], []
    for each in held:
        if each.until <= now:
            expired.append(each)
        elif now - each.delivery.received_at >= terms.hand_over_s and each.delivery.receipt not in acked:
            hand_over.append(each)
        elif now - each.extended_at >= terms.extend_s:
            extend.append(each)
    return Chores(tuple(expired), tuple(hand_over), tuple(extend))


class Holder:
    """At most `window` messages at once."""

    def __init__(
        self,
        ledger: Ledger,
        window: int,
        news: News,
        verdicts: Verdicts,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self._window = window
        self._news = news
        self._verdicts = verdicts
        self._clock = clock
        self._held: dict[str, Held] = {}
        self._asked: dict[str, Verdict] = {}

    @property
    def held(self) -> int:
        return len(self._held)

    def turn(self, wait_s: float) -> int:
        """Do what is due, then receive for up to `wait_s` seconds; how many came. Raises LedgerUnavailable, and has
        lost nothing then that the terms did not end."""
        try:
            self._obey()
            self._look_after()
            return self._receive(wait_s)
        except LedgerUnavailable:
            self._forget(self._expired(), "its lease has ended")
            raise

    def give_all_back(self) -> None:
        """Release everything, but acknowledge what is done. Raises LedgerUnavailable: then leases end by themselves."""
        self._obey()
        mine = [each for each in self._held.values() if each.until > self._clock()]
        self._ledger.release([each.delivery for each in mine])
        self._held.clear()

    def _obey(self) -> None:
        """What was asked of a message that is still ours; kept until the broker has heard it."""
        try:
            while True:
                receipt, verdict = self._verdicts.get_nowait()
                self._asked[receipt] = verdict
        except Empty:
            pass
        self._forget(self._expired(), "its lease has ended")
        self._asked = {receipt: verdict for receipt, verdict in self._asked.items() if receipt in self._held}
        done = self._those_asked(Verdict.ACK)
        if done:
            lost = self._ledger.ack(done)
            self._drop(done)
            log.info("ledger acked", messages=len(done) - len(lost), lost=len(lost))
        back = self._those_asked(Verdict.RELEASE)
        if back:
            self._ledger.release(back)
            self._drop(back)

    def _look_after(self) -> None:
        due = chores(self._held.values(), self._asked, self._ledger.terms, self._clock())
        if due.hand_over:
            self._ledger.release([each.delivery for each in due.hand_over])
            self._forget(due.hand_over, "it was handed over before the broker's limit")
        if due.extend:
            began = self._clock()
            lost = {each.receipt for each in self._ledger.extend([each.delivery for each in due.extend])}
            for each in due.extend:
                until = began + self._ledger.terms.lease_s
                self._held[each.delivery.receipt] = Held(each.delivery, until, began)
            self._forget([each for each in due.extend if each.delivery.receipt in lost], "the broker took it back")

    def _receive(self, wait_s: float) -> int:
        room = self._window - len(self._held)
        arrived = self._ledger.receive(max(0, room), wait_s)
        for each in arrived:
            self._held[each.receipt] = Held(each, each.received_at + self._ledger.terms.lease_s, each.received_at)
            self._news.put(each)
        return len(arrived)

    def _those_asked(self, verdict: Verdict) -> list[Delivery]:
        return [self._held[receipt].delivery for receipt, asked in self._asked.items() if asked is verdict]

    def _expired(self) -> list[Held]:
        now = self._clock()
        return [each for each in self._held.values() if each.until <= now]

    def _drop(self, deliveries: Iterable[Delivery]) -> None:
        for each in deliveries:
            self._held.pop(each.receipt, None)
            self._asked.pop(each.receipt, None)

    def _forget(self, gone: Collection[Held], why: str) -> None:
        """Say that these are somebody else's from now on."""
        for each in gone:
            self._news.put(Gone(each.delivery.receipt))
        self._drop(each.delivery for each in gone)
        if gone:
            log.info("ledger messages gone", messages=len(gone), reason=why)
