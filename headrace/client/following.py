"""A job's events over as many connections as it takes: bytes in, events out. Knows no connection and no clock.

Whoever owns a connection does as this says: `open`, feed what comes, `close`, and then end, ask for the job, or wait.
"""

from headrace.client import core, giving_up
from headrace.client.event_reading import read_event
from headrace.client.gateways import Gateways, Visit
from headrace.client.retry import Patience
from headrace.client.sse import Parser
from headrace.client.stream_state import StreamState, Verdict
from headrace.contract.errors import HeadraceError
from headrace.contract.events import Event


class Following:
    """One reader of one job. Times are seconds of any clock that never goes back."""

    def __init__(self, gateways: Gateways, job_id: str, cursor: str, patience: Patience, now: float) -> None:
        self._visit = Visit(gateways)
        self._job_id = job_id
        self._patience = patience
        self._state = StreamState(now, cursor)
        self._call = core.events_call(job_id, cursor)
        self._parser = Parser()
        self._messages = 0
        self._empty = 0  # connections in a row that ended in order and brought nothing
        self._outcome: core.Outcome | None = None
        self._damage: core.Broken | None = None
        self.spoilt = False
        """This connection skipped something, or brought what is no event, and is of no more use."""

    @property
    def url(self) -> str:
        """The gateway that the next connection is for."""
        return self._visit.url

    @property
    def ended(self) -> bool:
        """The last event has been seen."""
        return self._state.ended

    @property
    def doubtful(self) -> bool:
        """One empty connection may be a gateway that stops. Two, and a job that has ended, are a cursor behind its
        last event: whoever follows should look at the job."""
        return self._empty > 1

    def open(self) -> core.Call:
        """What a new connection is to ask."""
        self._parser, self._messages, self._damage, self.spoilt = Parser(), 0, None, False
        self._call = core.events_call(self._job_id, self._state.cursor)
        return self._call

    def feed(self, chunk: bytes, now: float) -> list[tuple[Event, str]]:
        """The new events in what came, each with the cursor behind it. Any bytes are a sign of life."""
        self._state.heard(now)
        shown = []
        for message in self._parser.feed(chunk):
            try:
                event = read_event(message.data)
            except HeadraceError as error:
                self._state.unread()
                self._damage, self.spoilt = core.garbled(error.message, met=True), True
                break
            if event is None:
                continue
            self._messages += 1
            verdict = self._state.take(event, message.id)
            if verdict is Verdict.SHOW:
                self._visit.answered()
                shown.append((event, message.id))
            elif verdict is Verdict.GAP:
                self.spoilt = True
                break
        return shown

    def heard(self, now: float) -> None:
        """Say so after an event was handed on: the reader's own time is not the server's silence."""
        self._state.heard(now)

    def close(self, outcome: core.Outcome | None) -> None:
        """The connection is gone: it ended in order (None), broke, or was answered with a refusal."""
        self._outcome = outcome or self._damage
        if self._outcome is None:
            self._empty = 0 if self._messages else self._empty + 1

    def pause(self, now: float, jitter: float) -> float:
        """Seconds until the next connection; none to a gateway that was not tried since the last event.

        Raises what the gateway refused with (JobNotFound, JournalExpired, ...), SetupError where nobody answers,
        NoProgress when nothing was heard for as long as patience lasts, or HeadraceError when what came is no events.
        """
        outcome = self._outcome or core.Broken("it ended early")
        failure = core.failure_of(outcome, self._call)
        if self._visit.go_on(failure):
            return 0.0
        delay = self._state.cut(failure, self._patience, now, jitter)
        if delay is not None:
            return delay
        if isinstance(outcome, core.Reply):
            raise core.error_of(outcome)
        if outcome.nobody:
            raise giving_up.unreachable(str(self._visit), outcome)
        if outcome.garbled:
            raise giving_up.unreadable(self._job_id, str(self._visit), outcome)
        raise giving_up.silent(self._job_id, self._state.silent_s(now))
