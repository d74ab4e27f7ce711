"""Sixteen streams of one fleet, followed in threads, and how to hold two runs against each other. Kills nothing."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from headrace import Client
from headrace.contract.events import TERMINAL_TYPES, Delta, Event, Resumed

ENOUGH = 8
"""Tokens of each stream before something is killed."""
SUBJECTS = ("a river", "a mill", "a wheel", "a mountain", "the sea", "a baker", "an owl", "a clock")


@dataclass(slots=True)
class Stream:
    """One job's events as its client saw them. Written by its own thread only."""

    events: list[Event] = field(default_factory=list)
    enough: threading.Event = field(default_factory=threading.Event)
    error: BaseException | None = None

    @property
    def token_ids(self) -> list[int]:
        return [i for event in self.events if isinstance(event, Delta) for i in event.token_ids]

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, Delta))

    @property
    def resumes(self) -> int:
        return sum(isinstance(event, Resumed) for event in self.events)

    def faults(self) -> list[str]:
        """What is wrong with this stream by itself: a gap, a repeat, or no proper end."""
        found: list[str] = []
        if self.error is not None:
            return [f"raised {self.error!r}"]
        seqs = [event.seq for event in self.events]
        if seqs != list(range(1, len(seqs) + 1)):
            found.append(f"seq {seqs}")
        offset = 0
        for event in self.events:
            if isinstance(event, Delta):
                if event.offset != offset:
                    found.append(f"offset {event.offset} where {offset} was due")
                offset += len(event.token_ids)
        types = [event.type for event in self.events]
        if not types or types[-1] != "completed" or TERMINAL_TYPES.intersection(types[:-1]):
            found.append(f"ended as {types[-1:]}")
        return found


def requests(max_tokens: int) -> list[dict[str, object]]:
    """Eight greedy requests and eight sampled ones with seeds."""
    return [
        {
            "messages": [{"role": "user", "content": f"Tell me a long story about {SUBJECTS[number % 8]}."}],
            "max_tokens": max_tokens,
            "temperature": 0.8 if number >= 8 else 0,
            "seed": 1000 + number,
            "job_class": "interactive",
        }
        for number in range(16)
    ]


class Run:
    """All requests submitted at once, each followed by a thread of its own."""

    def __init__(self, client: Client, model: str, max_tokens: int) -> None:
        self._client = client
        self.streams = [Stream() for _ in range(16)]
        handles = [client.submit(model=model, **request) for request in requests(max_tokens)]  # type: ignore[arg-type]
        self.job_ids = [handle.id for handle in handles]
        self._threads = [
            threading.Thread(target=self._follow, args=pair, daemon=True)
            for pair in zip(self.job_ids, self.streams, strict=True)
        ]
        for thread in self._threads:
            thread.start()

    def wait_until_all_have_begun(self, timeout: float) -> None:
        for stream in self.streams:
            assert stream.enough.wait(timeout), "a stream did not begin"

    def wait(self, timeout: float) -> Sequence[Stream]:
        for thread in self._threads:
            thread.join(timeout)
            assert not thread.is_alive(), "a stream did not end"
        return self.streams

    def _follow(self, job_id: str, stream: Stream) -> None:
        seen = 0
        try:
            for event in self._client.job(job_id).stream():
                stream.events.append(event)
                if isinstance(event, Delta):
                    seen += len(event.token_ids)
                if seen >= ENOUGH:
                    stream.enough.set()
        except BaseException as error:  # noqa: BLE001 - handed to the test, which reads `faults`
            stream.error = error
        finally:
            stream.enough.set()
