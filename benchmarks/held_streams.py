"""Sixteen streams on one worker of a fleet, an idle one beside it, and when each stream went on. Kills nothing itself.

Streams are read through the gateway's server-sent events by our own client, a thread for each.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil

from headrace import Client
from headrace.contract.events import TERMINAL_TYPES, Delta, Event, Resumed
from headrace.settings import RedisSettings
from tests.e2e.fleet import Fleet, running, wait_until
from workers.celery_app import make_app

LIMIT_S: Final = 120.0
ENOUGH: Final = 8
"""Tokens of each stream before anything happens."""


@dataclass(slots=True)
class Stream:
    """What its client saw, each event with the time of its arrival. Written by its own thread."""

    seen: list[tuple[float, Event]] = field(default_factory=list)
    error: BaseException | None = None

    def tokens(self) -> int:
        return sum(len(event.token_ids) for _, event in list(self.seen) if isinstance(event, Delta))

    def ended(self) -> bool:
        return bool(self.seen) and self.seen[-1][1].type in TERMINAL_TYPES

    def went_on_at(self) -> float | None:
        """When the first tokens of a later attempt came; None while they have not."""
        resumed = False
        for at, event in list(self.seen):
            resumed = resumed or isinstance(event, Resumed)
            if resumed and isinstance(event, Delta):
                return at
        return None


class Streams:
    """So many jobs, submitted and followed; cancelled when the block ends."""

    def __init__(self, client: Client, model: str, count: int, max_tokens: int, name: str) -> None:
        self._client = client
        handles = [
            client.submit(
                messages=[{"role": "user", "content": f"Tell me a long story about a mill, number {name}/{number}."}],
                model=model,
                max_tokens=max_tokens,
                temperature=0.8,
                seed=number,
                job_class="interactive",
            )
            for number in range(count)
        ]
        self.ids = [handle.id for handle in handles]
        self.all = [Stream() for _ in handles]
        self._threads = [
            threading.Thread(target=self._follow, args=pair, daemon=True)
            for pair in zip(self.ids, self.all, strict=True)
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> "Streams":
        return self

    def __exit__(self, *_: object) -> None:
        for job_id in self.ids:
            self._client.cancel(job_id)
        for thread in self._threads:
            thread.join(LIMIT_S)

    def wait_for_tokens(self, count: int = ENOUGH) -> None:
        """A model may also have ended a text before."""
        self._wait(lambda stream: stream.tokens() >= count or stream.ended(), "tokens of every stream")

    def wait_until_all_went_on(self) -> list[float]:
        """The times of it, of those that had not come to their end."""
        self._wait(lambda stream: stream.went_on_at() is not None or stream.ended(), "every stream to go on")
        return [at for stream in self.all if (at := stream.went_on_at()) is not None]

    def open(self) -> int:
        return sum(not stream.ended() for stream in self.all)

    def _wait(self, condition: Callable[[Stream], bool], what: str) -> None:
        wait_until(lambda: all(stream.error or condition(stream) for stream in self.all), LIMIT_S, what)
        for stream in self.all:
            if stream.error is not None:
                raise RuntimeError("a stream failed") from stream.error

    def _follow(self, job_id: str, stream: Stream) -> None:
        try:
            for event in self._client.job(job_id).stream():
                stream.seen.append((time.monotonic(), event))
        except BaseException as error:  # noqa: BLE001 - raised again to whoever waits for the streams
            stream.error = error


class Pair:
    """A fleet with two workers, `busy` and `idle`. Raises RuntimeError where a worker does not do as told.

    With `alone` the busy one is started beside the fleet, so that no supervisor sees what becomes of it.
    """

    def __init__(self, fleet: Fleet, folder: Path, model: str, *, alone: bool) -> None:
        self._fleet = fleet
        self._source = model
        self._log = folder / "alone.log"
        self._alone: subprocess.Popen[bytes] | None = None
        self._app = make_app(RedisSettings(url=fleet.redis_url))
        if alone:
            self.revive()
        self.whole()
        self.idle = next(worker for worker in fleet.workers() if not self._is_alone(worker))
        self.client = Client(fleet.url)

    def close(self) -> None:
        self.client.close()
        self._app.close()
        if self._alone is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._alone.pid, 9)
            self._alone.wait()

    @property
    def model(self) -> str:
        return self._fleet.model

    @property
    def busy(self) -> str:
        return next(worker for worker in self._fleet.workers() if worker != self.idle)

    def parent(self) -> psutil.Process:
        """Of the busy worker."""
        return self._fleet.workers()[self.busy]

    def child(self) -> psutil.Process:
        return self._fleet.engine_child(self.busy)

    def revive(self) -> None:
        """Start the worker that nobody supervises."""
        command = [sys.executable, "-m", "workers", "--model", self._source, "--redis-url", self._fleet.redis_url]
        with self._log.open("ab") as log:
            variables = {**os.environ, "HEADRACE_ENGINE__THREADS": "1"}
            self._alone = subprocess.Popen(command, env=variables, stdout=log, stderr=log, start_new_session=True)

    def whole(self) -> None:
        """Until both are ready."""
        if self._alone is not None and self._alone.poll() is not None:
            self.revive()
        wait_until(lambda: len(self._ready()) == 2, LIMIT_S, "two ready workers")

    def hold(self, worker: str, paused: bool) -> None:
        """Let a worker claim nothing new, or claim again; returns when it has answered."""
        command = "pause" if paused else "resume"
        node = f"headrace@{worker}"
        for _ in range(10):
            answers: Any = self._app.control.broadcast(command, destination=[node], reply=True, timeout=5.0, limit=1)
            if answers and "ok" in answers[0][node]:
                return
        raise RuntimeError(f"{worker} does not {command}")

    def streams_on_busy(self, count: int, max_tokens: int, name: str) -> Streams:
        """All on the busy one, with the idle one ready to claim: entered by whoever asked."""
        self.hold(self.idle, paused=True)
        streams = Streams(self.client, self.model, count, max_tokens, name)
        streams.wait_for_tokens()
        held, still_open = self._fleet.redis.scard(f"hr:held:{self.busy}"), streams.open()
        if held != still_open or still_open < count / 2:
            raise RuntimeError(f"the busy worker holds {held} of {still_open} streams")
        self.hold(self.idle, paused=False)
        return streams

    def warm(self, count: int) -> None:
        """Both have run as many streams as they are to run, so that nothing is done for the first time later."""
        for worker, other in ((self.idle, self.busy), (self.busy, self.idle)):
            self.hold(other, paused=True)
            with Streams(self.client, self.model, count, 64, f"warm/{worker}") as streams:
                streams.wait_for_tokens(32)
            self.hold(other, paused=False)

    def _ready(self) -> list[str]:
        return [beat.worker for beat, _ in self._fleet.beats() if beat.state == "ready"]

    def _is_alone(self, worker: str) -> bool:
        return self._alone is not None and f"_{self._alone.pid}_" in worker


@contextmanager
def running_pair(model: str, environ: dict[str, str], *, alone: bool) -> Iterator[Pair]:
    """`model` as `headrace up --model` takes it."""
    with tempfile.TemporaryDirectory(prefix="hr-") as name:
        folder = Path(name)
        with running(folder, model=model, workers=1 if alone else 2, environ=environ) as fleet:
            pair = Pair(fleet, folder, model, alone=alone)
            try:
                yield pair
            finally:
                pair.close()
