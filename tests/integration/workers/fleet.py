"""A small fleet for tests: one Redis, workers in threads with real engine processes, jobs put in and read out."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from headrace.contract.events import Delta, Event
from headrace.contract.generation import FrozenRequest, Sampling
from headrace.contract.ids import new_job_id
from headrace.contract.job import Job, JobClass, Kind, State
from headrace.contract.model_card import ModelCard
from headrace.queue.base import Outcome
from headrace.queue.redis import RedisQueue
from headrace.settings import EngineSettings, QueueSettings, RedisSettings, Settings, WorkerSettings
from headrace.store.cards import read_releases
from headrace.store.connection import connect
from headrace.store.journal import Journal
from tests.redis_server import RedisServer
from workers.inference.messages import Ready
from workers.inference.worker import InferenceWorker

T = TypeVar("T")
LIMIT_S = 60.0


def eventually(condition: Callable[[], T | None], what: str, limit_s: float = LIMIT_S) -> T:
    """The first true answer of a condition, asked again and again."""
    deadline = time.monotonic() + limit_s
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {limit_s:g} s: {what}")
        time.sleep(0.01)
    return answer


@dataclass
class Fleet:
    """The store side of a test: puts jobs in and reads what became of them."""

    server: RedisServer

    def __post_init__(self) -> None:
        self.client = connect(self.server.url)
        self.queue = RedisQueue(self.client, QueueSettings().timing())
        self.journal = Journal(self.client)

    def settings(self, model: str, *, queue: dict[str, Any] | None = None, **worker: Any) -> Settings:
        """Settings of a worker of this fleet; nothing is read from the environment."""
        return Settings.model_construct(
            redis=RedisSettings(url=self.server.url, socket_timeout_s=1.0, connect_timeout_s=1.0),
            queue=QueueSettings(**(queue or {})),
            worker=WorkerSettings(model=model, **worker),
            engine=EngineSettings(kv_budget_mb=8, threads=1),
        )

    @contextmanager
    def worker(self, settings: Settings) -> Iterator[InferenceWorker]:
        """A worker that has drained when the block ends."""
        worker = InferenceWorker(settings)
        worker.start()
        try:
            yield worker
        finally:
            worker.request_stop()
            assert worker.join(20.0), "the worker did not end"

    def submit(self, worker: InferenceWorker, prompt: str = "hello", max_tokens: int = 32, **request: Any) -> str:
        """Put a job into the lane of a worker, once its engine is ready."""
        ready = eventually(lambda: worker.ready or worker.failure, "engine ready")
        assert isinstance(ready, Ready), worker.failure
        return self.submit_to(worker.lane, ready.facts.revision, prompt, max_tokens, **request)

    def submit_to(
        self,
        lane: str,
        revision: str,
        prompt: str = "hello",
        max_tokens: int = 32,
        *,
        stop: tuple[str, ...] = (),
        seed: int = 7,
        temperature: float = 1.0,
        logprobs: int | None = None,
        deadline_ms: int | None = None,
    ) -> str:
        """Put a job into a lane, as submit would; its prompt is bytes. `logprobs` are those of output and prompt."""
        sampling = Sampling(seed=seed, temperature=temperature)
        job = Job(
            id=new_job_id(),
            model=lane.rpartition("@")[0],
            lane=lane,
            revision=revision,
            job_class=JobClass.STANDARD,
            kind=Kind.COMPLETION,
            deadline_at=deadline_ms,
            request=FrozenRequest(
                tuple(prompt.encode()), sampling, max_tokens, stop, logprobs=logprobs, prompt_logprobs=logprobs
            ),
        )
        assert self.queue.accept(job).outcome is Outcome.OK
        return job.id

    def card(self, lane: str) -> ModelCard:
        """The card of a lane, once a worker has written it."""
        found = eventually(lambda: [r.card for r in read_releases(self.client) if r.lane == lane], "card")
        return found[0]

    def get(self, job_id: str) -> Job:
        job = self.queue.get(job_id)
        assert job is not None
        return job

    def ended(self, job_id: str, limit_s: float = LIMIT_S) -> Job:
        """The record once the job has ended."""
        return eventually(lambda: job if (job := self.get(job_id)).ended else None, f"end of {job_id}", limit_s)

    def events(self, job_id: str) -> list[Event]:
        events: list[Event] = []
        while page := self.journal.read(job_id, events[-1].seq if events else 0):
            events += page
        return events

    def token_ids(self, job_id: str) -> tuple[int, ...]:
        """The joined ids; asserts that each is there once, in order, with seq without gap."""
        events = self.events(job_id)
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        ids: list[int] = []
        for event in events:
            if isinstance(event, Delta):
                assert event.offset == len(ids)
                ids += event.token_ids
        return tuple(ids)

    def types(self, job_id: str) -> list[str]:
        """Types of the events, repeated deltas once."""
        types: list[str] = []
        for event in self.events(job_id):
            if not types or types[-1] != event.type:
                types.append(event.type)
        return types

    def offset(self, job_id: str) -> int:
        return sum(self.get(job_id).next_offset)

    def running(self, job_id: str, tokens: int = 1) -> bool:
        job = self.get(job_id)
        return job.state is State.RUNNING and sum(job.next_offset) >= tokens
