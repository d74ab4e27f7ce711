"""Model cards and tokenizers in the store: written by starting workers, read by whoever submits or shows text.

Knows no worker and no queue. Cards have no TTL, so that a fleet at zero can still accept work.
"""

import asyncio
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from time import monotonic

import orjson
import redis
import redis.asyncio

from headrace.contract.errors import ModelNotFound, RevisionGone
from headrace.contract.job import lane_of
from headrace.contract.model_card import ModelCard
from headrace.store import keys
from headrace.store.beats import read_beats
from headrace.store.connection import store_errors
from headrace.text.tokenizer import Tokenizer

STABLE = "stable"
CARDS_TTL_S = 2.0
MISS_TTL_S = 0.1
MAX_TOKENIZERS = 8


@dataclass(frozen=True, slots=True)
class Release:
    """One release of one model, and the lane on which its jobs wait."""

    lane: str
    card: ModelCard

    @property
    def name(self) -> str:
        return self.lane.rpartition("@")[2]

    def answers_to(self, model: str) -> bool:
        return model == self.card.id or model in self.card.aliases


def tokenizer_ref(tokenizer_json: str) -> str:
    """What a card calls its tokenizer: the sha256 of its JSON."""
    return hashlib.sha256(tokenizer_json.encode()).hexdigest()


def write_card(client: redis.Redis, card: ModelCard, tokenizer_json: str, *, release: str = STABLE) -> ModelCard:
    """Put a worker's card and tokenizer into the store, and answer the card as it now is.

    It promises what the largest worker of this revision can hold that is alive by its beat: no less while there are
    larger ones, and no more after a fleet was made smaller. So it is worth saying again now and then. A model keeps
    the time of its first card, and a revision what only a running worker could say of it: its digest, and the speed
    that one of them measured last. Raises StoreUnavailable.
    """
    lane = lane_of(card.id, release)
    ref = tokenizer_ref(tokenizer_json)
    peers = (b.capacity for b in read_beats(client) if b.lane == lane and b.revision == card.revision)
    card = replace(card, tokenizer_ref=ref, max_kv_tokens=max(card.max_kv_tokens, *peers, 0))
    with store_errors():
        earlier = client.get(keys.card(lane))
        if earlier is not None:
            card = _heir(card, _card(earlier))
        with client.pipeline(transaction=True) as pipeline:
            pipeline.set(keys.tokenizer(ref), tokenizer_json)
            pipeline.hset(keys.TOKENIZERS, card.revision, ref)
            pipeline.set(keys.card(lane), orjson.dumps(card.to_json()))
            pipeline.sadd(keys.CARDS, lane)
            pipeline.execute()
    return card


def _heir(card: ModelCard, earlier: ModelCard) -> ModelCard:
    card = replace(card, created_at=earlier.created_at or card.created_at)
    if card.revision != earlier.revision:
        return card
    return replace(
        card,
        digest=card.digest or earlier.digest,
        tokens_per_second=card.tokens_per_second or earlier.tokens_per_second,
    )


def read_releases(client: redis.Redis) -> tuple[Release, ...]:
    """Every release in the store, by lane. Raises StoreUnavailable."""
    with store_errors():
        lanes = _lanes(client.smembers(keys.CARDS))
        return _releases(lanes, client.mget([keys.card(lane) for lane in lanes]) if lanes else [])


class CardBook:
    """The cards and tokenizers as one process sees them, at most `ttl_s` old. For one event loop.

    A model that is not found is looked for again at once, since its worker may just have started.
    """

    def __init__(self, client: redis.asyncio.Redis, *, ttl_s: float = CARDS_TTL_S) -> None:
        self._client = client
        self._ttl_s = ttl_s
        self._releases: tuple[Release, ...] = ()
        self._read_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None
        self._tokenizers: dict[str, asyncio.Task[Tokenizer]] = {}

    async def list(self) -> tuple[Release, ...]:
        """Every release, by lane. Raises StoreUnavailable."""
        return await self._at_most(self._ttl_s)

    async def get(self, model: str) -> Release:
        """The stable release of a model, by id or alias. Raises ModelNotFound with the names there are."""
        for age in (self._ttl_s, MISS_TTL_S):
            releases = await self._at_most(min(age, self._ttl_s))
            for release in releases:
                if release.name == STABLE and release.answers_to(model):
                    return release
        names = sorted({release.card.id for release in releases})
        raise ModelNotFound(
            f"The model `{model[:256]}` does not exist here.",
            param="model",
            next_step=f"Available: {', '.join(names)}." if names else "No worker has announced a model yet.",
        )

    async def tokenizer(self, revision: str) -> Tokenizer:
        """The tokenizer of a revision, also of one whose card has been replaced.

        Raises RevisionGone when the store no longer has it, StoreUnavailable when it cannot be asked.
        """
        task = self._tokenizers.get(revision)
        if task is None:
            while len(self._tokenizers) >= MAX_TOKENIZERS:
                del self._tokenizers[next(iter(self._tokenizers))]
            task = self._tokenizers[revision] = asyncio.create_task(self._load_tokenizer(revision))
        try:
            # Shielded, since others may wait for the same one when this caller goes away.
            return await asyncio.shield(task)
        except Exception:
            if self._tokenizers.get(revision) is task:
                del self._tokenizers[revision]
            raise

    async def _at_most(self, age_s: float) -> tuple[Release, ...]:
        """Whoever asks while somebody reads gets what that gives, an error too: one after another, in an outage, each
        would wait for its own timeout and for those of all before it."""
        if monotonic() - self._read_at > age_s:
            if self._reading is None or self._reading.done():
                self._reading = asyncio.create_task(self._renew())
                self._reading.add_done_callback(_heard)
            await asyncio.shield(self._reading)
        return self._releases

    async def _renew(self) -> None:
        self._releases = await self._read()
        self._read_at = monotonic()

    async def _read(self) -> tuple[Release, ...]:
        with store_errors():
            lanes = _lanes(await self._client.smembers(keys.CARDS))
            values = await self._client.mget([keys.card(lane) for lane in lanes]) if lanes else []
        return _releases(lanes, values)

    async def _load_tokenizer(self, revision: str) -> Tokenizer:
        with store_errors():
            ref = await self._client.hget(keys.TOKENIZERS, revision)
            value = None if ref is None else await self._client.get(keys.tokenizer(_text(ref)))
        if value is None:
            raise RevisionGone(f"The store has no tokenizer of revision {revision[:64]}.")
        return await asyncio.to_thread(Tokenizer, _text(value))


def _heard(task: asyncio.Task[None]) -> None:
    """An error whose every waiter has gone away is no news to anybody."""
    if not task.cancelled():
        task.exception()


def _lanes(members: Iterable[bytes | str]) -> list[str]:
    return sorted(_text(member) for member in members)


def _releases(lanes: Iterable[str], values: Iterable[bytes | str | None]) -> tuple[Release, ...]:
    return tuple(Release(lane, _card(value)) for lane, value in zip(lanes, values, strict=True) if value is not None)


def _card(value: bytes | str) -> ModelCard:
    return ModelCard.from_json(orjson.loads(value))


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
