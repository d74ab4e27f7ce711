"""The gateways of one fleet and which of them is talked to. Knows addresses and failures, no connection and no clock.

Any gateway can answer for any job, and a cursor of one means the same to another: what fails at one is said to the
next.
"""

from collections.abc import Sequence

from headrace.client.retry import Failure

_ELSEWHERE = frozenset({0, 502, 503, 504})
"""Failures of a gateway and not of what was asked: another one may do better."""


class Gateways:
    """Shared by all calls of a client. All begin at the same one until it fails, so that connections are used again.

    Threads may race in here: the worst that comes of it is a try at a gateway that another thread has just left.
    """

    def __init__(self, urls: Sequence[str]) -> None:
        self.urls = tuple(urls)
        self.url = self.urls[0]
        """Where the next call begins."""
        self.met = False
        """Whether any of them has ever answered."""

    def __str__(self) -> str:
        return " or ".join(self.urls)

    def after(self, url: str) -> str:
        """Where to go when `url` has failed; nobody begins there any more, until its turn comes again."""
        if self.url == url:
            self.url = self.urls[(self.urls.index(url) + 1) % len(self.urls)]
        return self.url


class Visit:
    """One caller's way through them."""

    def __init__(self, gateways: Gateways) -> None:
        self._gateways = gateways
        self._failed = 0
        self.url = gateways.url
        """Whom to ask now."""

    def __str__(self) -> str:
        return str(self._gateways)

    def answered(self) -> None:
        """What was asked for came: failures are counted anew."""
        self._failed = 0

    def go_on(self, failure: Failure) -> bool:
        """Move on if another gateway may do better; whether to ask it at once. After as many failures as there are
        gateways it is time for a pause."""
        if failure.final or failure.status not in _ELSEWHERE:
            return False
        self.url = self._gateways.after(self.url)
        self._failed = (self._failed + 1) % len(self._gateways.urls)
        return self._failed > 0
