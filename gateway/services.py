"""The parts that routes are handed, and how they are built and closed. Knows their order, not what they do."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from gateway.abandoned import Abandoned
from gateway.metrics import GatewayMetrics
from gateway.relay import Relay
from gateway.sweeper import sweep_forever
from headrace.cancelling import end_tasks
from headrace.contract.errors import SetupError
from headrace.ledger.publishing import PublishingQueue, open_publisher, scheme_of
from headrace.queue.async_redis import AsyncRedisQueue
from headrace.settings import Settings
from headrace.store.async_payloads import AsyncPayloads
from headrace.store.beats import BeatReader
from headrace.store.cards import CardBook
from headrace.store.connection import connect_async
from headrace.store.job_index import JobIndex
from headrace.store.journal import AsyncJournal
from headrace.store.live import LiveHub
from headrace.store.payloads import open_payloads
from headrace.store.probe import StoreProbe
from headrace.submission.replicated import replicated
from headrace.submission.submit import AsyncQueue, Submitter
from headrace.telemetry.tracing import Tracing, open_tracing

TRACES_S = 1.0
"""How long a gateway that stops waits for its last spans to be sent."""

LAST_CANCEL_S = 1.0
"""How long a gateway that stops tries to cancel the jobs whose clients it has sent away."""


@dataclass(frozen=True, slots=True)
class Services:
    """Everything a route may use. `closing` is set when this gateway has been asked to stop."""

    settings: Settings
    queue: AsyncRedisQueue
    journal: AsyncJournal
    payloads: AsyncPayloads
    submitter: Submitter
    cards: CardBook
    beats: BeatReader
    probe: StoreProbe
    relay: Relay
    index: JobIndex
    abandoned: Abandoned
    metrics: GatewayMetrics
    traces: Tracing
    closing: asyncio.Event


@asynccontextmanager
async def open_services(
    settings: Settings,
    closing: asyncio.Event,
    traces: Tracing | None = None,
    open_queue: Callable[..., AsyncRedisQueue] = AsyncRedisQueue,
) -> AsyncIterator[Services]:
    """Build everything; nothing here waits for Redis, so a gateway starts without it and says that it is not ready.

    `traces` is for those who keep them themselves; otherwise the settings say where they go. `open_queue` is called as
    `AsyncRedisQueue`. Raises SetupError when there is no URL or it is malformed.
    """
    if not settings.redis.url:
        raise SetupError(
            "No Redis URL is set.", next_step="Set HEADRACE_REDIS__URL, or run `headrace up`, which brings its own."
        )
    stored = open_payloads(settings)
    publisher = open_publisher(settings, stored.blobs)
    payloads = AsyncPayloads(stored)
    try:
        client = connect_async(
            settings.redis.url,
            connect_timeout_s=settings.redis.connect_timeout_s,
            socket_timeout_s=settings.redis.socket_timeout_s,
        )
    except ValueError as error:
        raise SetupError(f"The Redis URL {settings.redis.url!r} cannot be used: {error}", param="redis.url") from None
    queue = open_queue(client, settings.queue.timing(), payloads=payloads)
    door: AsyncQueue = (
        PublishingQueue(queue, payloads, publisher, scheme_of(settings.ledger.url)) if publisher else queue
    )
    waiting = replicated(door, settings.redis) if settings.redis.wait_replicas else None
    traces = traces or open_tracing(settings.telemetry, "headrace-gateway")
    metrics = GatewayMetrics()
    patience_s = settings.redis.socket_timeout_s
    hub = LiveHub(client, acknowledge_s=patience_s, ping_s=patience_s)
    journal = AsyncJournal(client, payloads)
    cards = CardBook(client)
    index = JobIndex(client)
    abandoned = Abandoned(queue)
    every_s = settings.queue.reap_ms / 1000
    sweeper = asyncio.create_task(sweep_forever(queue, index, metrics, every_s))
    canceller = asyncio.create_task(abandoned.cancel_forever(every_s))
    try:
        yield Services(
            settings=settings,
            queue=queue,
            journal=journal,
            payloads=payloads,
            submitter=Submitter(waiting or door, cards, abandon=abandoned.add),
            cards=cards,
            beats=BeatReader(client),
            probe=StoreProbe(client),
            relay=Relay(hub, journal, on_event=lambda _: metrics.events_sent.inc(), traces=traces),
            index=index,
            abandoned=abandoned,
            metrics=metrics,
            traces=traces,
            closing=closing,
        )
    finally:
        await end_tasks(sweeper, canceller)
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_CANCEL_S):
                await abandoned.cancel_all()
        payloads.close()
        if publisher:
            publisher.close()
        await hub.close()
        if waiting:
            await waiting.close()
        await client.aclose()
        await asyncio.to_thread(traces.close, TRACES_S)
