"""Submits jobs of several choices straight into the queue, which the HTTP API refuses to take. Follows nothing.

The engine, the journal and the road out know them: whoever submits from inside, as tasks do, may ask for them.
"""

from headrace.contract.generation import FrozenRequest
from headrace.contract.ids import new_job_id
from headrace.contract.job import Job
from headrace.openai.schema import JobBody, parse
from headrace.openai.translate import job_intent
from headrace.queue.base import Outcome
from headrace.queue.redis import RedisQueue
from headrace.store.cards import read_releases
from headrace.store.keys import tokenizer
from headrace.text.tokenizer import Tokenizer
from tests.chaos.orders import Order


class Inside:
    """Freezes and accepts as submit does. Asking again with the order's key gives the same job."""

    def __init__(self, queue: RedisQueue) -> None:
        self._queue = queue
        (self._release,) = read_releases(queue.client)
        text = queue.client.get(tokenizer(self._release.card.tokenizer_ref))
        assert isinstance(text, bytes)
        self._tokenizer = Tokenizer(text.decode())

    def submit(self, order: Order) -> str:
        """The job's id, once it is durable."""
        several = int(order.body["n"])
        intent = job_intent(parse(JobBody, {**order.body, "n": 1}))
        assert isinstance(intent.prompt, str)
        assert intent.max_tokens is not None
        assert intent.seed is not None
        request = FrozenRequest(
            prompt_ids=self._tokenizer.encode_prompt(intent.prompt),
            sampling=intent.sampling(intent.seed),
            max_tokens=intent.max_tokens,
            stop=intent.stop,
            n=several,
            logprobs=intent.logprobs,
        )
        job = Job(
            id=new_job_id(),
            model=self._release.card.id,
            lane=self._release.lane,
            revision=self._release.card.revision,
            job_class=intent.job_class,
            kind=intent.kind,
            request=request,
            deadline_at=intent.deadline_ms,
            idem_key=order.key,
            metadata=intent.metadata,
        )
        reply = self._queue.accept(job, body_hash="several")
        assert reply.outcome in (Outcome.OK, Outcome.EXISTS), reply
        return reply.job_id
