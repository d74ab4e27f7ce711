"""What EC2 says through its instance metadata service, version 2. Knows its paths and shapes, nothing of draining.

Spot interruption notices: AWS, "Spot Instance interruption notices" (EC2 user guide); two minutes ahead, except for
hibernation, which begins at once. Target lifecycle state: AWS, "Retrieve the target lifecycle state through instance
metadata" (EC2 Auto Scaling user guide). Both are 404 while there is nothing to say.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import structlog

from workers.notices.base import NoAnswer, Notice, first_notice
from workers.notices.metadata import Answer, MetadataServer

NAME = "ec2"
TOKEN_S = 21_600
_TOKEN = "/latest/api/token"
_ACTION = "/latest/meta-data/spot/instance-action"
_LIFECYCLE = "/latest/meta-data/autoscaling/target-lifecycle-state"
_REBALANCE = "/latest/meta-data/events/recommendations/rebalance"

log = structlog.get_logger(__name__)


class Ec2Notices:
    """Asks with a session token, which is fetched anew when the service no longer knows it."""

    pause_s = 2.0

    def __init__(self, server: MetadataServer, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._server = server
        self._now = now
        self._token = ""
        self._advised = False

    def is_here(self) -> bool:
        self._token = self._new_token()
        return True

    def poll(self) -> Notice | None:
        return first_notice(self._interruption, self._lifecycle_end, self._advice)

    def _interruption(self) -> Notice | None:
        """`{"action": "terminate", "time": "2017-09-18T08:22:00Z"}`"""
        if (answer := self._get(_ACTION)) is None:
            return None
        try:
            said = json.loads(answer.text)
            action, at = str(said["action"]), datetime.fromisoformat(said["time"].replace("Z", "+00:00"))
            seconds_left = (at - self._server_time(answer)).total_seconds()
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise NoAnswer(f"{_ACTION} answered {answer.text[:100]!r}") from error
        return Notice(NAME, f"spot interruption: {action} at {at.isoformat()}", max(0.0, seconds_left))

    def _lifecycle_end(self) -> Notice | None:
        answer = self._get(_LIFECYCLE)
        if answer is None or answer.text != "Terminated":
            return None
        return Notice(NAME, "the Auto Scaling group ends this instance")

    def _advice(self) -> None:
        """A risk, not a date: work goes on."""
        if not self._advised and self._get(_REBALANCE) is not None:
            self._advised = True
            log.warning("EC2 recommends to rebalance: this spot instance may be interrupted soon")

    def _server_time(self, answer: Answer) -> datetime:
        """By the clock that made the date, where the answer says it: this machine's may be off."""
        try:
            return parsedate_to_datetime(answer.headers["date"])
        except (KeyError, ValueError):
            return self._now()

    def _get(self, path: str) -> Answer | None:
        """None where there is nothing."""
        self._token = self._token or self._new_token()
        answer = self._ask(path)
        if answer.status == 401:
            self._token = self._new_token()
            answer = self._ask(path)
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise NoAnswer(f"{path} answered with status {answer.status}")
        return answer

    def _ask(self, path: str) -> Answer:
        return self._server.ask(path, {"X-aws-ec2-metadata-token": self._token})

    def _new_token(self) -> str:
        ttl = {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_S)}
        answer = self._server.ask(_TOKEN, ttl, method="PUT")
        if answer.status != 200 or not answer.text.isprintable() or not answer.text:
            raise NoAnswer(f"{_TOKEN} answered with status {answer.status} and no token")
        return answer.text
