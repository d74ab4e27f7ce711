"""The one road out: a job's events from a cursor on, exactly once. Knows journal and live channel, no HTTP.

Subscribe, wait for the acknowledgement, read the journal from the first event, then listen; read again on a missing
`seq` or a while of silence. What a reader has seen is cut away by token offsets, never by `seq` alone: a store that
lost its tail numbers the healed tokens anew.
"""

import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from gateway.cursor import Cursor
from gateway.transcript import NewStream, Transcript
from headrace.contract.errors import HeadraceError, StoreUnavailable
from headrace.contract.events import TERMINAL_TYPES, Delta, Event
from headrace.contract.job import Job
from headrace.store.journal import PAGE, AsyncJournal
from headrace.store.live import Listener, LiveHub
from headrace.telemetry import tracing
from headrace.telemetry.tracing import Tracing


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds: how long silence is believed, at first and at most, how soon a failed read is repeated, how long an
    outage is borne.

    Each read that finds nothing doubles the silence that is believed, the next event makes it short again: thousands
    of streams that wait for their first token must not read their journals every second.
    """

    silence_s: float = 1.0
    longest_silence_s: float = 15.0
    retry_s: float = 0.25
    patience_s: float = 60.0


class Relay:
    """Opens roads. One for each gateway; it owns nothing but the way to journal and hub.

    `on_event` is called with each event that a reader is given.
    """

    def __init__(
        self,
        hub: LiveHub,
        journal: AsyncJournal,
        pace: Pace | None = None,
        *,
        on_event: Callable[[Event], None] = lambda _: None,
        traces: Tracing = tracing.OFF,
    ) -> None:
        self._hub = hub
        self._journal = journal
        self._pace = pace or Pace()
        self._on_event = on_event
        self._traces = traces

    @asynccontextmanager
    async def follow(self, job: Job, cursor: Cursor, new_stream: NewStream) -> AsyncIterator["Road"]:
        """A road from `cursor` on; leaving the context unsubscribes.

        Raises before the first event JobNotFound, JournalExpired or StoreUnavailable.
        """
        with self._spanned(job) as on_event:
            async with self._hub.listen(job.id) as listener:
                road = Road(job.id, listener, self._journal, Transcript(cursor, new_stream), self._pace, on_event)
                await road.open()
                yield road

    @contextmanager
    def _spanned(self, job: Job) -> Iterator[Callable[[Event], None]]:
        """A span from the first look to the last byte. Whoever follows a job that another request submitted does so in
        a trace of their own, linked to that job's."""
        parent = tracing.current()
        elsewhere = tracing.trace_fields(job.traceparent) != tracing.trace_fields(parent)
        links = (job.traceparent,) if job.traceparent and elsewhere else ()
        span = self._traces.start("job.stream", parent=parent, links=links, attributes={"headrace.job.id": job.id})
        told = 0

        def on_event(event: Event) -> None:
            nonlocal told
            told += 1
            self._on_event(event)
            if isinstance(event, Delta) and event.offset == 0:
                span.event("first_token")

        try:
            yield on_event
        finally:
            span.set({"headrace.events": told})
            span.end()


class Road:
    """One reader's way through one job's events. Not for two tasks at once."""

    def __init__(
        self,
        job_id: str,
        listener: Listener,
        journal: AsyncJournal,
        transcript: Transcript,
        pace: Pace,
        on_event: Callable[[Event], None],
    ) -> None:
        self._job_id = job_id
        self._listener = listener
        self._journal = journal
        self._transcript = transcript
        self._pace = pace
        self._on_event = on_event
        self._ready: deque[tuple[Event, Cursor]] = deque()
        self._last: tuple[object, ...] | None = None  # mark of the last event read; None before the first
        self._seq = 0
        self._ended = False
        self._silence_s = pace.silence_s
        self._look_at = 0.0  # when the journal is to be read again, monotonic seconds
        self._trouble_since: float | None = None
        self.cursor = transcript.cursor
        """Behind the event that `next` returned last."""

    @property
    def ended(self) -> bool:
        """Whether the terminal event has been returned (or had been seen before this road was opened)."""
        return self._ended and not self._ready

    async def open(self) -> None:
        """The first look at the journal: what is wrong is said before anything is sent."""
        await self._read()

    async def next(self, timeout_s: float) -> Event | None:
        """The next event, or None when there was none in `timeout_s` seconds.

        Raises StoreUnavailable after an outage longer than the pace's patience, JournalExpired or JobNotFound when the
        events are gone.
        """
        deadline = time.monotonic() + timeout_s
        while not self._ready:
            now = time.monotonic()
            if self._ended or now >= deadline:
                return None
            if now >= self._look_at:
                await self._look()
            else:
                await self._listen(min(self._look_at, deadline) - now)
        event, self.cursor = self._ready.popleft()
        self._on_event(event)
        return event

    async def _listen(self, timeout_s: float) -> None:
        until = time.monotonic() + timeout_s
        event = await self._listener.next(timeout_s)
        if event is None:
            if time.monotonic() < until:  # told before the time was up: something may have been missed
                self._look_at = 0.0
            return
        if event.seq == self._seq + 1 and self._transcript.fits(event):
            self._take(event)
            self._look_at = time.monotonic() + self._silence_s
        elif event.seq > self._seq + 1 or self._transcript.is_news(event):
            # Something is missing in front of it, or the store has lost its tail and numbers anew: the journal tells.
            self._look_at = 0.0

    async def _look(self) -> None:
        """Read the journal, and bear an outage for a while: leases and jobs outlive it, so may a reader."""
        try:
            await self._read()
        except StoreUnavailable:
            now = time.monotonic()
            self._trouble_since = self._trouble_since or now
            if now - self._trouble_since > self._pace.patience_s:
                raise
            self._look_at = now + self._pace.retry_s
        else:
            self._trouble_since = None

    async def _read(self) -> None:
        """One page from the last event read on, which must still be there: if not, the tail was lost."""
        events = await self._journal.read(self._job_id, max(0, self._seq - 1), PAGE)
        from_the_start = self._seq == 0
        more = len(events) == PAGE
        if not from_the_start:
            if not events or _mark(events[0]) != self._last:
                return self._rewind()
            events = events[1:]
        for event in events:
            if not self._transcript.fits(event):
                if from_the_start:
                    raise HeadraceError(f"The journal of {self._job_id} misses tokens before event {event.seq}.")
                return self._rewind()
            self._take(event)
        if not events:
            self._silence_s = min(2 * self._silence_s, self._pace.longest_silence_s)
        self._look_at = 0.0 if more else time.monotonic() + self._silence_s
        return None

    def _rewind(self) -> None:
        self._seq, self._last, self._look_at = 0, None, 0.0

    def _take(self, event: Event) -> None:
        self._seq, self._last, self._silence_s = event.seq, _mark(event), self._pace.silence_s
        self._ended = self._ended or event.type in TERMINAL_TYPES
        shown = self._transcript.feed(event)
        if shown is not None:
            self._ready.append((shown, self._transcript.cursor))


def _mark(event: Event) -> tuple[object, ...]:
    """What tells two events of one number apart; ids of the same offsets are the same in every attempt."""
    span = (event.choice, event.offset, len(event.token_ids)) if isinstance(event, Delta) else ()
    return (event.seq, event.type, *span)
