"""A worker that says what a test tells it to, through the real verbs of the real queue. Has no engine."""

import time
from collections.abc import Callable
from typing import TypeVar

import redis

from headrace.contract.errors import ErrorInfo
from headrace.contract.events import Delta
from headrace.contract.generation import Choice, PromptLogprobs, TokenLogprobs, Usage
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


def score(token_id: int, alternatives: int) -> TokenLogprobs:
    """What this worker says of every token: it is the likeliest, and the next ids follow. Whole in float32."""
    top = tuple((token_id + i, -0.5 - i) for i in range(alternatives))
    return TokenLogprobs(-0.5, top)


def prompt_scores(job: Job) -> PromptLogprobs:
    if job.request.prompt_logprobs is None:
        return ()
    _, *others = job.request.prompt_ids
    wanted = job.request.prompt_logprobs
    return (None, *(score(i, wanted) for i in others))


class ScriptedWorker:
    def __init__(self, client: redis.Redis, name: str = "w_test_1_a") -> None:
        self.client = client
        self.name = name
        self.digest = "digest-1"
        self.queue = RedisQueue(client, Timing())
        self.cached_tokens = 0
        self._said: dict[str, list[int]] = {}

    def announce(self) -> None:
        write_card(self.client, CARD, TOKENIZER_JSON)

    def claim(self) -> Job:
        """The next job, as soon as there is one; its attempt has begun."""
        request = ClaimRequest((LANE,), self.name, REVISION, self.digest, 100_000, 100_000, 1)
        (job,) = wait_for(lambda: self.queue.claim(request))
        self._said[job.id] = []
        assert self.queue.append([Append(job.lease)])[0].outcome is Outcome.OK
        return job

    def say(self, job: Job, text: str, finish_reason: str | None = None) -> AppendReply:
        """One delta with these ids, at the place the job has come to, and the log probabilities that were asked for."""
        said, request = self._said[job.id], job.request
        ids = ids_of(text)
        first = not said
        delta = Delta(
            seq=0,
            choice=0,
            offset=len(said),
            token_ids=ids,
            text=text,
            finish_reason=finish_reason,
            logprobs=() if request.logprobs is None else tuple(score(i, request.logprobs) for i in ids),
            prompt_logprobs=prompt_scores(job) if first else (),
        )
        said += ids
        return self.queue.append([Append(job.lease, (delta,))])[0]

    def rewind(self, job: Job, offset: int) -> None:
        """The next delta begins at `offset`; what comes before is what the journal has."""
        (journaled,) = Journal(self.client).ids(job.id)
        self._said[job.id] = list(journaled.token_ids[:offset])

    def succeed(self, job: Job, reason: str = "stop") -> FinishReply:
        said = tuple(self._said[job.id])
        usage = Usage(len(job.request.prompt_ids), len(said), self.cached_tokens)
        wanted = job.request.logprobs
        scores = () if wanted is None else tuple(score(i, wanted) for i in said)
        choice = Choice(0, said, reason, scores, prompt_scores(job))
        return self.queue.finish(job.lease, Ending(State.SUCCEEDED, usage, (choice,)))

    def fail(self, job: Job, error: ErrorInfo) -> FinishReply:
        usage = Usage(len(job.request.prompt_ids), len(self._said[job.id]))
        return self.queue.finish(job.lease, Ending(State.FAILED, usage, error=error))

    def run(self, *pieces: str) -> Job:
        """Claim a job and carry it to its end, one delta for each piece."""
        return self.carry_on(self.claim(), *pieces)

    def carry_on(self, job: Job, *pieces: str) -> Job:
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
