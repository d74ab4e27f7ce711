"""The one road in, through the real queue: what is asked for becomes a durable job, once."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
import redis
import redis.asyncio

from engine.loaders import describe
from headrace.contract.errors import (
    ContextLengthExceeded,
    IdempotencyConflict,
    InvalidRequest,
    ModelNotFound,
    QueueFull,
    StoreUnavailable,
)
from headrace.contract.job import Job, JobClass, Kind, State
from headrace.contract.model_card import ModelCard
from headrace.queue.async_redis import AsyncRedisQueue
from headrace.queue.base import AcceptReply, Outcome, Timing
from headrace.store.cards import CardBook, write_card
from headrace.store.connection import connect_async
from headrace.submission.intent import Intent, Turn
from headrace.submission.submit import AsyncQueue, Submitter
from tests.tiny_model import write_tiny_model
from tests.unit.submission.announced import announce
from tests.unit.text.vocabularies import byte_level

HELLO = Intent(Kind.CHAT, "small", JobClass.INTERACTIVE, messages=(Turn("user", "hello"),))
RAW = Intent(Kind.COMPLETION, "small", JobClass.STANDARD, prompt="hello")


class Full:
    """A queue at its limit."""

    async def accept(self, job: Job, *, body_hash: str = "") -> AcceptReply:
        return AcceptReply(Outcome.FULL, job.id)

    async def get(self, job_id: str) -> Job | None:
        return None


@pytest.fixture
def queue(async_client: redis.asyncio.Redis) -> AsyncRedisQueue:
    return AsyncRedisQueue(async_client, Timing())


@pytest.fixture
def submitter(queue: AsyncRedisQueue, async_client: redis.asyncio.Redis) -> Submitter:
    return Submitter(queue, CardBook(async_client, ttl_s=0))


async def test_a_chat_becomes_a_queued_job(client: redis.Redis, queue: AsyncRedisQueue, submitter: Submitter) -> None:
    card = announce(client)
    asked = replace(HELLO, stop=("x",), seed=7, temperature=0.5, metadata={"a": "b"}, max_tokens=9)
    submitted = await submitter.submit(asked, traceparent="00-trace")
    job = await queue.get(submitted.job_id)
    assert job is not None
    assert not submitted.replayed
    assert (job.state, job.model, job.lane, job.revision) == (State.QUEUED, "small", "small@stable", card.revision)
    assert (job.kind, job.job_class, job.tenant) == (Kind.CHAT, JobClass.INTERACTIVE, "default")
    assert (job.traceparent, job.metadata) == ("00-trace", {"a": "b"})
    assert job.request == submitted.job.request
    assert (job.request.stop, job.request.max_tokens, job.request.sampling) == (("x",), 9, asked.sampling(7))
    rendered = "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    assert job.request.prompt_ids == byte_level().encode(rendered, special=True)


async def test_defaults(client: redis.Redis, submitter: Submitter) -> None:
    card = announce(client)
    chat = (await submitter.submit(HELLO)).job.request
    assert chat.max_tokens + len(chat.prompt_ids) == card.context_length
    again = (await submitter.submit(HELLO)).job.request
    assert 0 <= chat.sampling.seed < 2**63
    assert chat.sampling.seed != again.sampling.seed
    raw = (await submitter.submit(replace(RAW, prompt="<|im_start|>a"))).job.request
    assert (raw.max_tokens, raw.prompt_ids[0]) == (16, byte_level().special["<|im_start|>"].id)


async def test_an_alias_is_written_as_the_model_it_means(client: redis.Redis, submitter: Submitter) -> None:
    announce(client)
    assert (await submitter.submit(replace(HELLO, model="tiny"))).job.model == "small"


async def test_a_deadline_is_in_server_time(client: redis.Redis, queue: AsyncRedisQueue, submitter: Submitter) -> None:
    announce(client)
    submitted = await submitter.submit(replace(RAW, deadline_ms=60_000))
    job = await queue.get(submitted.job_id)
    assert job is not None
    assert job.created_at is not None
    assert job.deadline_at == job.created_at + 60_000


async def test_what_is_submitted_has_the_times_of_its_record(
    client: redis.Redis, queue: AsyncRedisQueue, submitter: Submitter
) -> None:
    announce(client)
    job = (await submitter.submit(replace(RAW, deadline_ms=60_000))).job
    recorded = await queue.get(job.id)
    assert recorded is not None
    assert recorded == replace(job, seq=1, kv_tokens=recorded.kv_tokens, place=recorded.place)
    assert (await queue.accept(replace(job, deadline_at=1))).created_at == recorded.created_at


async def test_refusals_leave_no_job(client: redis.Redis, submitter: Submitter) -> None:
    announce(client)
    announce(client, id="mute", chat_template=None, revision="r-mute")
    announce(client, id="picky", chat_template="{{ raise_exception('Speak up') }}", revision="r-picky")
    refusals: list[tuple[Intent, type[Exception], str]] = [
        (replace(HELLO, model="gpt"), ModelNotFound, "does not exist"),
        (replace(HELLO, model="mute"), InvalidRequest, "no chat template"),
        (replace(HELLO, model="picky"), InvalidRequest, "Speak up"),
        (replace(HELLO, max_tokens=400), ContextLengthExceeded, "400"),
        (replace(RAW, prompt="x" * 400), ContextLengthExceeded, "no room"),
        (replace(RAW, prompt="xyz " * 4_000), ContextLengthExceeded, "at least"),
        (replace(HELLO, messages=(Turn("user", "xyz " * 4_000),)), ContextLengthExceeded, "at least"),
    ]
    for intent, error, reason in refusals:
        with pytest.raises(error, match=reason):
            await submitter.submit(intent)
    with pytest.raises(InvalidRequest, match="Idempotency-Key"):
        await submitter.submit(HELLO, idem_key="not a key")
    assert not list(client.scan_iter("hr:job:*"))


async def test_the_same_key_and_body_is_the_same_job(client: redis.Redis, submitter: Submitter) -> None:
    announce(client)
    first = await submitter.submit(HELLO, idem_key="k", body_hash="h")
    again = await submitter.submit(HELLO, idem_key="k", body_hash="h")
    assert (again.job_id, again.replayed) == (first.job_id, True)
    # The seed that was drawn first is the one that counts.
    assert again.job.request == first.job.request
    assert again.job.created_at is not None
    assert len(list(client.scan_iter("hr:job:*"))) == 1


async def test_the_same_key_and_another_body_is_a_conflict(client: redis.Redis, submitter: Submitter) -> None:
    announce(client)
    first = await submitter.submit(HELLO, idem_key="k", body_hash="h")
    with pytest.raises(IdempotencyConflict, match=first.job_id):
        await submitter.submit(RAW, idem_key="k", body_hash="other")


async def test_token_ids_are_taken_as_they_are(client: redis.Redis, submitter: Submitter) -> None:
    announce(client)
    asked = replace(RAW, prompt=(3, 1, 2), logprobs=2, echo=True, max_tokens=0)
    request = (await submitter.submit(asked)).job.request
    assert (request.prompt_ids, request.max_tokens) == ((3, 1, 2), 0)
    assert (request.logprobs, request.prompt_logprobs, request.echo) == (2, 2, True)
    unscored = (await submitter.submit(replace(RAW, logprobs=0))).job.request
    assert (unscored.logprobs, unscored.prompt_logprobs, unscored.echo) == (0, None, False)


async def test_the_jobs_of_one_request_are_all_queued_or_none(client: redis.Redis, submitter: Submitter) -> None:
    announce(client)
    with pytest.raises(InvalidRequest):
        await submitter.submit_all([RAW, replace(RAW, prompt=(10**6,))])
    assert not list(client.scan_iter("hr:job:*"))
    done = await submitter.submit_all([RAW, RAW, HELLO], idem_key="k", body_hash="h")
    again = await submitter.submit_all([RAW, RAW, HELLO], idem_key="k", body_hash="h")
    assert [each.job_id for each in again] == [each.job_id for each in done]
    assert all(each.replayed for each in again)
    assert len(list(client.scan_iter("hr:job:*"))) == 3


@pytest.mark.parametrize("key", ["", "k"])
async def test_what_was_queued_before_an_error_is_abandoned_unless_a_key_can_find_it(
    client: redis.Redis, async_client: redis.asyncio.Redis, queue: AsyncRedisQueue, key: str
) -> None:
    announce(client)
    taken: list[str] = []

    class Failing:
        """Takes two jobs; of the second one only the answer is lost."""

        async def accept(self, job: Job, *, body_hash: str = "") -> AcceptReply:
            taken.append(job.id)
            reply = await queue.accept(job, body_hash=body_hash)
            if len(taken) == 2:
                raise StoreUnavailable("The answer was lost.")
            return reply

        async def get(self, job_id: str) -> Job | None:
            return await queue.get(job_id)

    abandoned: list[str] = []
    submitter = Submitter(Failing(), CardBook(async_client), abandon=abandoned.append)
    with pytest.raises(StoreUnavailable):
        await submitter.submit_all([RAW, RAW, RAW], idem_key=key, body_hash="h")
    assert abandoned == ([] if key else taken)
    assert len(taken) == 2


async def test_a_full_queue_says_when_to_come_back(client: redis.Redis, async_client: redis.asyncio.Redis) -> None:
    announce(client)
    full: AsyncQueue = Full()
    with pytest.raises(QueueFull) as caught:
        await Submitter(full, CardBook(async_client)).submit(HELLO)
    assert caught.value.retry_after_s


async def test_no_store() -> None:
    async with connect_async("unix:///nowhere/r.sock") as nowhere:
        with pytest.raises(StoreUnavailable):
            await Submitter(AsyncRedisQueue(nowhere, Timing()), CardBook(nowhere)).submit(HELLO)


async def test_others_go_on_while_a_long_prompt_is_encoded(client: redis.Redis, submitter: Submitter) -> None:
    announce(client, context_length=500_000, max_kv_tokens=500_000)
    await submitter.submit(HELLO)
    long = asyncio.create_task(submitter.submit(replace(RAW, prompt="so much text " * 30_000)))
    turns = 0
    while not long.done():
        await asyncio.sleep(0)
        turns += 1
    assert len((await long).job.request.prompt_ids) > 300_000
    assert turns > 100


async def test_a_model_file_as_the_engine_describes_it(
    client: redis.Redis, submitter: Submitter, tmp_path: Path
) -> None:
    model = describe(write_tiny_model(tmp_path / "tiny.gguf"))
    card = ModelCard(
        id="file",
        revision=model.revision,
        context_length=256,
        max_kv_tokens=256,
        vocab_size=model.shape.vocab_size,
        eos_ids=tuple(model.eos_ids),
        bos_id=model.bos_id,
        tokenizer_ref="",
        chat_template=model.chat_template,
    )
    write_card(client, card, model.tokenizer_json)
    hostile = replace(HELLO, model="file", messages=(Turn("user", "<|im_end|>"),))
    ids = (await submitter.submit(hostile)).job.request.prompt_ids
    assert max(ids) < model.shape.vocab_size
    assert len([i for i in ids if i >= 256]) == 3


async def test_a_fallback_is_frozen_beside_the_first_request(
    client: redis.Redis, queue: AsyncRedisQueue, submitter: Submitter
) -> None:
    first = announce(client)
    other = announce(client, id="other", aliases=(), revision="r2", context_length=50, max_kv_tokens=50)
    submitted = await submitter.submit(replace(HELLO, fallback_model="other", seed=3, max_tokens=7))
    job = await queue.get(submitted.job_id)
    assert job is not None
    assert job.fallback is not None
    assert (job.model, job.revision) == (first.id, first.revision)
    assert (job.fallback.model, job.fallback.lane, job.fallback.revision) == ("other", "other@stable", other.revision)
    assert job.fallback.request == job.request  # one tokenizer and template here, so the same ids


async def test_a_fallback_that_is_not_there_or_cannot_be_is_refused(
    client: redis.Redis, queue: AsyncRedisQueue, submitter: Submitter
) -> None:
    announce(client)
    announce(client, id="other", aliases=(), revision="r2", context_length=4, max_kv_tokens=4)
    with pytest.raises(ModelNotFound) as absent:
        await submitter.submit(replace(HELLO, fallback_model="nobody"))
    with pytest.raises(ContextLengthExceeded, match="other") as too_small:
        await submitter.submit(replace(HELLO, fallback_model="other"))
    assert absent.value.param == too_small.value.param == "fallback_model"
    with pytest.raises(InvalidRequest, match="as `model` is"):
        await submitter.submit(replace(HELLO, fallback_model=HELLO.model))
    with pytest.raises(InvalidRequest, match="fallback_model"):
        await submitter.submit(replace(RAW, prompt=(1, 2), fallback_model="small"))
    assert list(client.scan_iter("hr:job:*")) == []
