"""One job in a client's hand. Knows its id and what was last seen of it; all talking is the client's."""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from headrace.client.result import JobResult, JobView, first_text, outcome
from headrace.client.waiting import Polling
from headrace.contract.events import Event

if TYPE_CHECKING:
    from headrace.client.client import Client


class JobHandle:
    """A submitted job. Cheap: holds no connection, and may be made again from the id at any time."""

    def __init__(self, client: "Client", job_id: str, view: JobView | None = None) -> None:
        self.id = job_id
        self._client = client
        self._view = view

    def __repr__(self) -> str:
        return f"JobHandle({self.id!r})"

    def refresh(self) -> JobView:
        """How the job stands now; once it has ended, asks no more."""
        if self._view is None or not self._view.ended:
            self._view = self._client.fetch(self.id)
        return self._view

    def wait(self, timeout: float | None = None) -> JobResult:
        """Until the job has ended. Raises its typed exception when it did not succeed, TimeoutError after `timeout` s.

        The job goes on after a TimeoutError; only `cancel` ends it.
        """
        polling = Polling(self.id, timeout, time.monotonic())
        while not (view := self.refresh()).ended:
            time.sleep(polling.pause(time.monotonic()))
        return outcome(view)

    def stream(self, cursor: str = "") -> Iterator[Event]:
        """Its events from the first (or from a cursor) to the last, across lost connections and restarted gateways."""
        for event, _ in self.stream_with_cursors(cursor):
            yield event

    def stream_with_cursors(self, cursor: str = "") -> Iterator[tuple[Event, str]]:
        """As `stream`, and with each event the cursor that goes on behind it, for readers that stop and come back."""
        return self._client.events(self.id, cursor)

    def text_stream(self) -> Iterator[str]:
        """The text of the first choice as it comes. Raises the job's typed exception when it does not succeed."""
        for event in self.stream():
            if text := first_text(event, self.id):
                yield text

    def cancel(self) -> JobView:
        """End the job now, wherever it is. One that had ended stays as it was."""
        self._view = self._client.cancel(self.id)
        return self._view
