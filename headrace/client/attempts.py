"""The tries of one call, until there is an answer or no patience left. Knows no connection and no clock."""

from headrace.client import core
from headrace.client.retry import Patience


class Attempts:
    """Judges what each try brought. Times are seconds of any clock that never goes back."""

    def __init__(self, url: str, patience: Patience, now: float) -> None:
        self._url = url
        self._patience = patience
        self._began = now
        self._failures = 0

    def judge(self, outcome: core.Outcome, now: float, jitter: float) -> core.Reply | float:
        """A good answer, or the seconds until the next try. Raises the last try's error when there is to be none.

        `jitter` is a random number in [0, 1).
        """
        if isinstance(outcome, core.Reply) and outcome.status < 400:
            return outcome
        self._failures += 1
        delay = self._patience.delay(core.failure_of(outcome), self._failures, now - self._began, jitter)
        if delay is None:
            raise core.error_of(outcome) if isinstance(outcome, core.Reply) else core.unreachable(self._url, outcome)
        return delay
