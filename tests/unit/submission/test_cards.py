"""Cards and tokenizers, through a real Redis."""

import asyncio
from dataclasses import replace

import pytest
import redis
import redis.asyncio

from headrace.contract.errors import ModelNotFound, RevisionGone, SetupError, StoreUnavailable
from headrace.store import keys
from headrace.store.beats import Beat, write_beat
from headrace.store.cards import CardBook, Release, read_releases, tokenizer_ref, write_card
from headrace.store.connection import connect, connect_async
from tests.unit.submission.announced import CARD, announce, tokenizer_json


def test_what_was_written_is_read(client: redis.Redis) -> None:
    assert read_releases(client) == ()
    card = announce(client)
    assert card == replace(CARD, tokenizer_ref=tokenizer_ref(tokenizer_json()))
    assert read_releases(client) == (Release("small@stable", card),)
    assert client.ttl(keys.card("small@stable")) == client.ttl(keys.tokenizer(card.tokenizer_ref)) == -1
    assert client.get(keys.tokenizer(card.tokenizer_ref)) == tokenizer_json().encode()


def test_a_model_keeps_its_first_time(client: redis.Redis) -> None:
    announce(client, created_at=5)
    assert announce(client, created_at=9, revision="r2").created_at == 5


def test_the_largest_living_worker_of_the_revision_counts(client: redis.Redis) -> None:
    announce(client, max_kv_tokens=9_000)
    for name, lane, revision, capacity in [
        ("w1", "small@stable", "r1", 6_000),
        ("w2", "small@stable", "other", 7_000),
        ("w3", "other@stable", "r1", 8_000),
    ]:
        write_beat(client, Beat(name, lane, "ready", revision=revision, capacity=capacity))
    assert announce(client, max_kv_tokens=5_000).max_kv_tokens == 6_000
    assert announce(client, max_kv_tokens=6_500).max_kv_tokens == 6_500


async def test_a_model_is_found_by_id_and_alias(client: redis.Redis, async_client: redis.asyncio.Redis) -> None:
    card = announce(client)
    write_card(client, replace(CARD, id="next", aliases=()), tokenizer_json(), release="canary")
    book = CardBook(async_client)
    assert await book.get("small") == await book.get("tiny") == Release("small@stable", card)
    assert [release.name for release in await book.list()] == ["canary", "stable"]
    with pytest.raises(ModelNotFound):
        await book.get("next")


async def test_an_unknown_model_is_told_what_there_is(client: redis.Redis, async_client: redis.asyncio.Redis) -> None:
    book = CardBook(async_client, ttl_s=0)
    with pytest.raises(ModelNotFound, match="`gpt`") as caught:
        await book.get("gpt")
    assert caught.value.next_step == "No worker has announced a model yet."
    announce(client)
    with pytest.raises(ModelNotFound) as caught:
        await book.get("gpt")
    assert (caught.value.param, caught.value.next_step) == ("model", "Available: small.")


async def test_known_cards_are_not_read_each_time(client: redis.Redis, async_client: redis.asyncio.Redis) -> None:
    announce(client)
    book = CardBook(async_client, ttl_s=3_600)
    known = await book.get("small")
    announce(client, context_length=7)
    assert await book.get("small") == known


async def test_a_new_model_is_found_before_the_cards_are_old(
    client: redis.Redis, async_client: redis.asyncio.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.store.cards.MISS_TTL_S", 0.0)
    announce(client)
    book = CardBook(async_client, ttl_s=3_600)
    await book.list()
    announce(client, id="late")
    assert (await book.get("late")).lane == "late@stable"


async def test_a_tokenizer_is_loaded_once_and_outlives_its_card(
    client: redis.Redis, async_client: redis.asyncio.Redis
) -> None:
    announce(client)
    announce(client, revision="r2")
    book = CardBook(async_client)
    first, second, other = await asyncio.gather(book.tokenizer("r1"), book.tokenizer("r1"), book.tokenizer("r2"))
    assert first is second is await book.tokenizer("r1")
    assert other.encode("hello", special=True) == first.encode("hello", special=True)


async def test_a_waiter_that_goes_away_does_not_take_the_tokenizer_with_it(
    client: redis.Redis, async_client: redis.asyncio.Redis
) -> None:
    announce(client)
    book = CardBook(async_client)
    leaving = asyncio.create_task(book.tokenizer("r1"))
    staying = asyncio.create_task(book.tokenizer("r1"))
    await asyncio.sleep(0)
    leaving.cancel()
    assert (await staying).vocab_size == CARD.vocab_size
    with pytest.raises(asyncio.CancelledError):
        await leaving


async def test_a_tokenizer_that_is_not_there(client: redis.Redis, async_client: redis.asyncio.Redis) -> None:
    book = CardBook(async_client)
    with pytest.raises(RevisionGone):
        await book.tokenizer("r1")
    announce(client)
    assert (await book.tokenizer("r1")).vocab_size == CARD.vocab_size


async def test_a_tokenizer_that_cannot_be_read(client: redis.Redis, async_client: redis.asyncio.Redis) -> None:
    write_card(client, CARD, "no json")
    with pytest.raises(SetupError):
        await CardBook(async_client).tokenizer("r1")


async def test_no_store() -> None:
    nowhere = "unix:///nowhere/r.sock"
    with connect(nowhere) as client:
        with pytest.raises(StoreUnavailable):
            announce(client)
        with pytest.raises(StoreUnavailable):
            read_releases(client)
    async with connect_async(nowhere) as async_client:
        book = CardBook(async_client)
        for call in (book.list(), book.get("small"), book.tokenizer("r1")):
            with pytest.raises(StoreUnavailable):
                await call
