"""What Compute Engine says through its metadata server. Knows its keys and shapes, nothing of draining.

Google, "View and query VM metadata" (`wait_for_change`, `Metadata-Flavor`), "Preemptible VM instances" (`preempted`, 30
seconds ahead) and "Query the metadata server for maintenance event notices" (`maintenance-event`; it warns only those
who have asked before).
"""

from urllib.parse import urlencode

import structlog

from workers.notices.base import NoAnswer, Notice, first_notice
from workers.notices.metadata import Answer, MetadataServer

NAME = "gce"
WAIT_S = 5
PREEMPTION_S = 30.0
_INSTANCE = "/computeMetadata/v1/instance"
_FLAVOUR = {"Metadata-Flavor": "Google"}
_ENDS = "TERMINATE_ON_HOST_MAINTENANCE"

log = structlog.get_logger(__name__)


class GceNotices:
    """The first poll answers at once, later ones wait at the server until it has news."""

    pause_s = 0.5  # for a server that answers at once instead of waiting

    def __init__(self, server: MetadataServer) -> None:
        self._server = server
        self._etag = ""
        self._event = "NONE"

    def is_here(self) -> bool:
        self._get("preempted")
        return True

    def poll(self) -> Notice | None:
        return first_notice(self._preemption, self._maintenance)

    def _maintenance(self) -> Notice | None:
        event = self._get("maintenance-event").text
        if event == _ENDS:
            return Notice(NAME, "host maintenance ends this instance")
        if event != self._event:
            log.info("host maintenance", said=event)
        self._event = event
        return None

    def _preemption(self) -> Notice | None:
        query = {"wait_for_change": "true", "timeout_sec": WAIT_S, "last_etag": self._etag}
        wait = f"?{urlencode(query)}" if self._etag else ""
        answer = self._get(f"preempted{wait}", WAIT_S if wait else 0.0)
        if answer.text not in ("TRUE", "FALSE"):
            raise NoAnswer(f"preempted answered {answer.text[:100]!r}")
        self._etag = answer.headers.get("etag", "")
        return Notice(NAME, "this instance is preempted", PREEMPTION_S) if answer.text == "TRUE" else None

    def _get(self, key: str, wait_s: float = 0.0) -> Answer:
        answer = self._server.ask(f"{_INSTANCE}/{key}", _FLAVOUR, wait_s=wait_s)
        if answer.status != 200 or answer.headers.get("metadata-flavor") != "Google":
            raise NoAnswer(f"{key} answered with status {answer.status}, not as Google's server does")
        return answer
