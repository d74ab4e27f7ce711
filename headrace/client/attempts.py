"""The tries of one call, until there is an answer or no patience left. Knows no connection and no clock."""

from headrace.client import core, giving_up
from headrace.client.gateways import Gateways, Visit
from headrace.client.retry import Patience


class Attempts:
    """Judges what each try brought. Times are seconds of any clock that never goes back."""

    def __init__(self, gateways: Gateways, call: core.Call, patience: Patience, now: float) -> None:
        self._visit = Visit(gateways)
        self._call = call
        self._patience = patience
        self._began = now
        self._failures = 0

    @property
    def url(self) -> str:
        """The gateway that the next try is for."""
        return self._visit.url

    def judge(self, outcome: core.Outcome, now: float, jitter: float) -> core.Reply | float:
        """A good answer, or the seconds until the next try. Raises the last try's error when there is to be none.

        Each gateway is tried before there is a pause. `jitter` is a random number in [0, 1).
        """
        if isinstance(outcome, core.Reply) and outcome.status < 400:
            return outcome
        failure = core.failure_of(outcome, self._call)
        if self._visit.go_on(failure):
            return 0.0
        self._failures += 1
        delay = self._patience.delay(failure, self._failures, now - self._began, jitter)
        if delay is None:
            if isinstance(outcome, core.Reply):
                raise core.error_of(outcome)
            raise giving_up.unreachable(str(self._visit), outcome)
        return delay
