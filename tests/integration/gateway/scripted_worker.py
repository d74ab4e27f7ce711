"""A worker that says what a test tells it to, through the real verbs of the real queue. Has no engine."""

import time
from collections.abc import Callable
from typing import TypeVar

import redis

from headrace.contract.errors import ErrorInfo
from headrace.contract.events import Delta
from headrace.contract.generation import Choice, Usage
from headrace.contract.job import Job, State
from headrace.contract.model_card import ModelCard
from headrace.queue.base import Append, AppendReply, ClaimRequest, Ending, FinishReply, Outcome, Timing
from headrace.queue.redis import RedisQueue
from headrace.store.cards import write_card
from headrace.store.journal import Journal
from tests.unit.gateway.byte_model import CHAT_TEMPLATE, EOS, TOKENIZER_JSON, ids_of

MODEL = "org/byte-model"
LANE = f"{MODEL}@stable"
REVISION = "revision-1"
T = TypeVar("T")

CARD = ModelCard(
    id=MODEL,
    revision=REVISION,
    context_length=4096,
    max_kv_tokens=4096,
    vocab_size=259,
    eos_ids=(EOS,),
    bos_id=None,
    tokenizer_ref="",
    chat_template=CHAT_TEMPLATE,
    aliases=("byte-alias",),
    digest="digest-1",
    created_at=1_700_000_000_000,
)


def wait_for(what: Callable[[], T | None], limit_s: float = 10.0) -> T:
    """The first answer that is not None or False."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if answer := what():
            return answer
        time.sleep(0.01)
    raise AssertionError("nothing came in time")


class ScriptedWorker:
    def __init__(self, client: redis.Redis, name: str = "w_test_1_a") -> None:
        self.client = client
        self.name = name
        self.queue = RedisQueue(client, Timing())
        self._said: dict[str, list[int]] = {}

    def announce(self) -> None:
        write_card(self.client, CARD, TOKENIZER_JSON)

    def claim(self) -> Job:
        """The next job, as soon as there is one; its attempt has begun."""
        request = ClaimRequest((LANE,), self.name, REVISION, "digest-1", 100_000, 100_000, 1)
        (job,) = wait_for(lambda: self.queue.claim(request))
        self._said[job.id] = []
        assert self.queue.append([Append(job.lease)])[0].outcome is Outcome.OK
        return job

    def say(self, job: Job, text: str, finish_reason: str | None = None) -> AppendReply:
        """One delta with these ids, at the place the job has come to."""
        said = self._said[job.id]
        ids = ids_of(text)
        delta = Delta(0, 0, len(said), ids, text, finish_reason)
        said += ids
        return self.queue.append([Append(job.lease, (delta,))])[0]

    def rewind(self, job: Job, offset: int) -> None:
        """The next delta begins at `offset`; what comes before is what the journal has."""
        (journaled,) = Journal(self.client).ids(job.id)
        self._said[job.id] = list(journaled.token_ids[:offset])

    def succeed(self, job: Job, reason: str = "stop") -> FinishReply:
        said = tuple(self._said[job.id])
        usage = Usage(len(job.request.prompt_ids), len(said))
        return self.queue.finish(job.lease, Ending(State.SUCCEEDED, usage, (Choice(0, said, reason),)))

    def fail(self, job: Job, error: ErrorInfo) -> FinishReply:
        usage = Usage(len(job.request.prompt_ids), len(self._said[job.id]))
        return self.queue.finish(job.lease, Ending(State.FAILED, usage, error=error))

    def run(self, *pieces: str) -> Job:
        """Claim a job and carry it to its end, one delta for each piece."""
        job = self.claim()
        for number, piece in enumerate(pieces, 1):
            self.say(job, piece, "stop" if number == len(pieces) else None)
        self.succeed(job)
        return job

    def state(self, job_id: str) -> State | None:
        job = self.queue.get(job_id)
        return job.state if job else None

    def listeners(self, job_id: str) -> int:
        """How many connections hear the job's live channel."""
        ((_, count),) = self.client.pubsub_numsub(f"hr:live:{job_id}")
        return int(count)
