"""The road itself, where a test needs another pace than a served gateway's."""

from collections import Counter
from collections.abc import AsyncIterator, Iterator

import pytest

from gateway.cursor import Cursor
from gateway.relay import Pace, Relay, Road
from headrace.contract.errors import HeadraceError, StoreUnavailable
from headrace.contract.events import Completed, Delta, Event
from headrace.contract.generation import FrozenRequest, Sampling
from headrace.contract.ids import new_job_id
from headrace.contract.job import Job, JobClass, Kind
from headrace.store import keys
from headrace.store.connection import connect, connect_async
from headrace.store.journal import AsyncJournal
from headrace.store.live import LiveHub
from headrace.text.detokenizer import TextStream
from tests.integration.gateway.scripted_worker import LANE, MODEL, REVISION, ScriptedWorker
from tests.redis_server import RedisServer, running_redis
from tests.unit.gateway.byte_model import byte_tokenizer

QUICK = Pace(silence_s=0.05, retry_s=0.02, patience_s=0.3)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


@pytest.fixture
def script(server: RedisServer) -> Iterator[ScriptedWorker]:
    with connect(server.url) as client:
        yield ScriptedWorker(client)


@pytest.fixture
async def relay(server: RedisServer) -> AsyncIterator[Relay]:
    client = connect_async(server.url, connect_timeout_s=1, socket_timeout_s=1)
    hub = LiveHub(client)
    yield Relay(hub, AsyncJournal(client), QUICK)
    await hub.close()
    await client.aclose()


def accepted(script: ScriptedWorker) -> Job:
    request = FrozenRequest((1, 2), Sampling(seed=0), 50)
    job = Job(new_job_id(), MODEL, LANE, REVISION, JobClass.STANDARD, Kind.COMPLETION, request)
    script.queue.accept(job)
    return script.claim()


def stream(_revision: str) -> TextStream:
    return TextStream(byte_tokenizer())


async def rest(road: Road) -> list[Event]:
    found: list[Event] = []
    while not road.ended:
        event = await road.next(5)
        assert event is not None or road.ended, "the road fell silent"
        found += [event] if event else []
    return found


async def test_an_outage_is_borne_for_so_long_and_no_longer(
    relay: Relay, script: ScriptedWorker, server: RedisServer
) -> None:
    async with relay.follow(accepted(script), Cursor.start(1), stream) as road:
        for _ in ("accepted", "started"):
            assert await road.next(5) is not None
        server.kill()
        with pytest.raises(StoreUnavailable):
            await rest(road)


async def test_what_was_never_published_is_found_in_the_journal(relay: Relay, script: ScriptedWorker) -> None:
    """Silence sends a reader to the journal, so a message that the channel lost is only late."""
    job = accepted(script)
    async with relay.follow(job, Cursor.start(1), stream) as road:
        for _ in ("accepted", "started"):
            assert await road.next(5) is not None
        fields = {"event": "0 0 stop", "ids": bytes([104, 0, 0, 0, 105, 0, 0, 0])}
        script.client.xadd(keys.journal(job.id), fields, id="3-0")  # type: ignore[arg-type]
        assert await road.next(5) == Delta(3, 0, 0, (104, 105), "hi", "stop")


async def test_a_stream_that_waits_long_looks_ever_more_rarely_and_at_once_again_when_something_came(
    relay: Relay, script: ScriptedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, read = Counter[str](), AsyncJournal.read

    async def counted(journal: AsyncJournal, job_id: str, after_seq: int, limit: int) -> list[Event]:
        looks[job_id] += 1
        return await read(journal, job_id, after_seq, limit)

    monkeypatch.setattr(AsyncJournal, "read", counted)
    job = accepted(script)
    async with relay.follow(job, Cursor.start(1), stream) as road:
        while await road.next(1.0):
            pass
        assert looks.pop(job.id) <= 6, "at once, then after 0.05, 0.1, 0.2, 0.4 s, and no 20 times"
        script.say(job, "so")
        assert await road.next(5) is not None
        looks.clear()
        assert await road.next(0.3) is None
        assert looks[job.id]


async def test_a_journal_with_a_hole_is_an_error_and_no_endless_search(relay: Relay, script: ScriptedWorker) -> None:
    job = accepted(script)
    script.say(job, "one ")
    script.say(job, "two ")
    script.client.xdel(keys.journal(job.id), "3-0")
    with pytest.raises(HeadraceError, match="misses tokens"):
        async with relay.follow(job, Cursor.start(1), stream):
            pass


async def test_a_reader_at_the_end_is_told_nothing_more(relay: Relay, script: ScriptedWorker) -> None:
    job = accepted(script)
    script.say(job, "all", "stop")
    script.succeed(job)
    async with relay.follow(job, Cursor.start(1), stream) as road:
        assert isinstance((await rest(road))[-1], Completed)
        behind = road.cursor
    async with relay.follow(job, behind, stream) as road:
        assert road.ended


async def test_a_long_journal_is_read_page_by_page(relay: Relay, script: ScriptedWorker) -> None:
    job = accepted(script)
    for _ in range(12):
        script.say(job, "x")
    with script.client.pipeline() as pipe:
        for seq in range(15, 1300):
            pipe.xadd(keys.journal(job.id), {"event": f"0 {seq - 3}", "ids": bytes([120, 0, 0, 0])}, id=f"{seq}-0")
        pipe.execute()
    async with relay.follow(job, Cursor.start(1), stream) as road:
        events = [await road.next(5) for _ in range(1299)]
    assert "".join(event.text for event in events if isinstance(event, Delta)) == "x" * 1297
