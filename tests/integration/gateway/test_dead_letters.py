"""`/v1/dlq`: what a person sees of dead jobs, and what redrive and purge do to them."""

from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis

from headrace.client import Client, LetterOutcome
from headrace.contract.errors import ErrorInfo
from headrace.contract.ids import new_job_id
from headrace.contract.job import Job, State
from headrace.ledger.done import DoneMarks
from headrace.queue.base import ReapRequest
from headrace.settings import BlobSettings
from headrace.store import dead_letters, keys
from headrace.store.blobs_folder import FolderBlobs
from tests.integration.gateway.scripted_worker import LANE, MODEL, ScriptedWorker
from tests.integration.gateway.serving import Gateway, serving, settings_for
from tests.redis_server import RedisServer

PROMPT = {"model": MODEL, "prompt": "go"}


def create(client: httpx2.Client, **fields: Any) -> str:
    return str(client.post("/v1/jobs", json={**PROMPT, **fields}).json()["id"])


def kill(worker: ScriptedWorker) -> Job:
    """The next job of the lane kills three engines, the first of them after it has said something."""
    job = worker.claim()
    worker.say(job, "half ")
    for _ in range(3):
        worker.queue.reap(ReapRequest(worker.name, died=True))
        if worker.state(job.id) is not State.DEAD:
            job = worker.claim()
    return job


def parked(client: httpx2.Client, worker: ScriptedWorker, count: int = 1, **fields: Any) -> list[str]:
    ids = [create(client, **fields) for _ in range(count)]
    for _ in ids:
        kill(worker)
    return ids


def parked_at_once(client: httpx2.Client, worker: ScriptedWorker, count: int) -> list[str]:
    """Each has died nine times before, if the record is to be believed."""
    ids = [create(client) for _ in range(count)]
    for job_id in ids:
        worker.client.hset(keys.job(job_id), "deaths_total", 9)
        worker.claim()
        worker.queue.reap(ReapRequest(worker.name, died=True))
    return ids


def listed(client: httpx2.Client, **parameters: Any) -> dict[str, Any]:
    reply = client.get("/v1/dlq", params=parameters)
    assert reply.status_code == 200, reply.text
    page: dict[str, Any] = reply.json()
    return page


def ids_in(page: dict[str, Any]) -> list[str]:
    return [letter["id"] for letter in page["data"]]


def post(client: httpx2.Client, verb: str, **body: Any) -> dict[str, Any]:
    reply = client.post(f"/v1/dlq/{verb}", json=body)
    assert reply.status_code == 200, reply.text
    answer: dict[str, Any] = reply.json()
    return answer


def test_a_letter_says_why_how_often_and_where(client: httpx2.Client, worker: ScriptedWorker) -> None:
    (job_id,) = parked(client, worker, metadata={"row": "7"}, max_tokens=20)
    (letter,) = listed(client)["data"]
    assert (letter["id"], letter["object"], letter["lane"]) == (job_id, "dead_letter", LANE)
    assert letter["reason"]["code"] == "poison"
    assert (letter["attempts"], letter["retries"], letter["deaths"]) == (3, 0, 3)
    assert [(past["attempt"], past["worker"], past["code"]) for past in letter["history"]] == [
        (attempt, worker.name, "worker_died") for attempt in (1, 2, 3)
    ]
    assert [past["offset"] for past in letter["history"]] == [5, 5, 5]
    assert letter["workers"] == [worker.name]
    assert letter["usage"]["completion_tokens"] == 5
    assert letter["metadata"] == {"row": "7"}
    assert letter["ended_at"] >= letter["history"][2]["at"] >= letter["created_at"]


def test_the_snapshot_has_prompt_text_so_far_and_events(client: httpx2.Client, worker: ScriptedWorker) -> None:
    (job_id,) = parked(client, worker, max_tokens=20, temperature=0.5, stop=["never"])
    shown = client.get(f"/v1/dlq/{job_id}").json()
    assert shown["prompt"] == {"text": "go", "error": None}
    assert shown["choices"] == [{"index": 0, "tokens": 5, "text": "half ", "finish_reason": None}]
    assert shown["request"]["prompt_tokens"] == 2
    assert (shown["request"]["max_tokens"], shown["request"]["stop"]) == (20, ["never"])
    assert shown["request"]["sampling"]["temperature"] == 0.5
    assert [event["type"] for event in shown["events"]] == [
        *("accepted", "started", "delta", "resumed", "resumed", "failed")
    ]


def test_a_snapshot_without_its_tokenizer_says_so(
    client: httpx2.Client, worker: ScriptedWorker, store: redis.Redis
) -> None:
    job_id = create(client)
    kill(worker)
    store.hset(keys.job(job_id), "revision", "revision-0")
    shown = client.get(f"/v1/dlq/{job_id}").json()
    assert (shown["prompt"]["text"], shown["prompt"]["error"]["code"]) == (None, "revision_gone")
    assert [choice["tokens"] for choice in shown["choices"]] == [5]


@pytest.mark.parametrize("same_time", [True, False])
def test_pages_join_to_the_whole(
    client: httpx2.Client,
    worker: ScriptedWorker,
    store: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    same_time: bool,
) -> None:
    """Over two lanes, also where more died in one millisecond than are read at once; what is gone is dropped."""
    monkeypatch.setattr(dead_letters, "BATCH", 2)
    ids = parked_at_once(client, worker, 7)
    other = "other@stable"
    store.sadd(keys.CARDS, other)
    store.set(keys.card(other), store.get(keys.card(LANE)) or b"")
    for job_id in ids[::2]:
        store.hset(keys.job(job_id), "lane", other)
        store.zrem(keys.dlq(LANE), job_id)
        store.zadd(keys.dlq(other), {job_id: int(store.hget(keys.job(job_id), "ended_at") or 0)})
    if same_time:
        for job_id in ids:
            lane = other if job_id in ids[::2] else LANE
            store.zadd(keys.dlq(lane), {job_id: 1_700_000_000_000})
    ghost = new_job_id()
    store.zadd(keys.dlq(other), {ghost: 1_700_000_000_001})
    whole = ids_in(listed(client))
    assert sorted(whole) == sorted(ids)
    assert same_time or whole == ids[::-1]
    assert store.zscore(keys.dlq(other), ghost) is None
    found: list[str] = []
    after: dict[str, str] = {}
    while True:
        page = listed(client, limit=3, **after)
        found += ids_in(page)
        if not page["has_more"]:
            assert page["cursor"] is None
            break
        after = {"cursor": page["cursor"]}
    assert found == whole
    assert sorted(ids_in(listed(client, lane=other))) == sorted(ids[::2])


def test_filters(client: httpx2.Client, worker: ScriptedWorker) -> None:
    (poison,) = parked(client, worker, metadata={"batch": "1"})
    tired = create(client, metadata={"batch": "2"})
    for _ in range(4):
        job = worker.claim()
        worker.queue.retry(job.lease, 0, ErrorInfo("engine_error", "It broke.", retryable=True))
        worker.queue.reap(ReapRequest())
    letters = {letter["id"]: letter for letter in listed(client)["data"]}
    assert letters[tired]["reason"]["code"] == "retries_exhausted"
    died = letters[poison]["ended_at"]
    for wanted, expected in (
        ({"code": "poison"}, [poison]),
        ({"code": "engine_error"}, [tired]),
        ({"model": MODEL}, [tired, poison]),
        ({"model": "byte-alias"}, [tired, poison]),
        ({"model": "another"}, []),
        ({"tenant": "nobody"}, []),
        ({"until": died}, [poison]),
        ({"since": died + 1}, [tired]),
        ({"metadata[batch]": "2"}, [tired]),
        ({"ids": f"{poison},{new_job_id()}"}, [poison]),
    ):
        assert ids_in(listed(client, **wanted)) == expected, wanted


def test_a_redrive_is_a_new_job_with_the_same_request(
    client: httpx2.Client, worker: ScriptedWorker, store: redis.Redis
) -> None:
    (old,) = parked(client, worker, max_tokens=20, metadata={"row": "7"})
    (done,) = post(client, "redrive")["data"]
    assert done["id"] == old
    before, after = worker.queue.get(old), worker.queue.get(done["redriven_as"])
    assert before is not None
    assert after is not None
    assert (after.redrive_of, before.redriven_as) == (old, after.id)
    assert after.request == before.request
    assert (after.metadata, after.tenant, after.job_class) == (before.metadata, before.tenant, before.job_class)
    assert (after.attempt, after.deaths_total, after.history, after.deadline_at) == (0, 0, (), None)
    assert listed(client)["data"] == []
    assert client.get(f"/v1/dlq/{old}").status_code == 404
    assert store.pttl(keys.job(old)) > 0
    assert store.pttl(keys.journal(old)) > 0
    shown = client.get(f"/v1/jobs/{old}").json(), client.get(f"/v1/jobs/{after.id}").json()
    assert [(job["redrive_of"], job["redriven_as"]) for job in shown] == [(None, after.id), (old, None)]
    assert worker.run("now it works").id == after.id
    assert client.get(f"/v1/jobs/{after.id}").json()["state"] == "succeeded"


def test_a_redrive_goes_on_with_its_cursor_and_leaves_what_it_cannot(
    client: httpx2.Client, worker: ScriptedWorker, store: redis.Redis
) -> None:
    ids = parked_at_once(client, worker, 4)
    store.hset(keys.job(ids[0]), "revision", "revision-0")
    dry = post(client, "redrive", dry_run=True)
    assert [each["id"] for each in dry["data"]] == ids[1:]
    first = post(client, "redrive", limit=2)
    assert ([each["id"] for each in first["data"]], first["has_more"]) == ([ids[1]], True)
    (refused,) = first["refused"]
    assert (refused["id"], refused["error"]["code"]) == (ids[0], "revision_gone")
    rest = post(client, "redrive", limit=2, cursor=first["cursor"], deadline_seconds=60)
    assert ([each["id"] for each in rest["data"]], rest["has_more"], rest["refused"]) == (ids[2:], False, [])
    last = worker.queue.get(rest["data"][1]["redriven_as"])
    assert last is not None
    assert last.deadline_at == (last.created_at or 0) + 60_000
    assert ids_in(listed(client)) == [ids[0]]


def test_a_redrive_of_poison_ends(gateway: Gateway, client: httpx2.Client, worker: ScriptedWorker) -> None:
    """Each one is dead again before the next is redriven, by the SDK and by whoever follows the cursor."""
    ids = parked_at_once(client, worker, 4)
    told: list[LetterOutcome] = []

    def tell(outcome: LetterOutcome) -> None:
        told.append(outcome)
        assert len(told) <= len(ids), "what died again is redriven again"
        kill(worker)

    with Client(gateway.url) as sdk:
        sdk.dlq.redrive(rate=500.0, tell=tell)
    assert [outcome.id for outcome in told] == ids
    again = ids_in(listed(client))[::-1]
    assert again == [outcome.redriven_as for outcome in told]
    page = post(client, "redrive", limit=1)
    redriven: list[str] = []
    while len(redriven) <= len(again):
        redriven += [each["id"] for each in page["data"]]
        kill(worker)
        if not page["has_more"]:
            break
        page = post(client, "redrive", limit=1, cursor=page["cursor"])
    assert redriven == again


def test_what_dies_during_a_purge_is_left(client: httpx2.Client, worker: ScriptedWorker) -> None:
    ids = parked_at_once(client, worker, 2)
    page = post(client, "purge", all=True, limit=1)
    young = parked_at_once(client, worker, 2)
    rest = post(client, "purge", all=True, cursor=page["cursor"])
    assert [each["id"] for each in page["data"] + rest["data"]] == ids
    assert (rest["has_more"], ids_in(listed(client))[::-1]) == (False, young)


def test_a_deadline_is_a_millisecond_at_least(client: httpx2.Client, worker: ScriptedWorker) -> None:
    parked_at_once(client, worker, 1)
    (done,) = post(client, "redrive", deadline_seconds=0.0004)["data"]
    job = worker.queue.get(done["redriven_as"])
    assert job is not None
    assert job.deadline_at == (job.created_at or 0) + 1


def test_named_ones_are_redriven_once(client: httpx2.Client, worker: ScriptedWorker) -> None:
    (old,) = parked(client, worker)
    stranger, alive = new_job_id(), create(client)
    once = post(client, "redrive", ids=[old])
    again = post(client, "redrive", ids=[old, stranger, alive])
    assert once["data"] == again["data"]
    assert [each["error"]["code"] for each in again["refused"]] == ["job_not_found"] * 2
    assert client.get("/v1/jobs", params={"state": "active"}).json()["data"][0]["id"] == once["data"][0]["redriven_as"]


def test_purged_is_gone_and_its_key_is_free(client: httpx2.Client, worker: ScriptedWorker, store: redis.Redis) -> None:
    headers = {"idempotency-key": "mine"}
    first = client.post("/v1/jobs", json=PROMPT, headers=headers).json()["id"]
    kill(worker)
    others = parked(client, worker, 2)
    dry = post(client, "purge", ids=[first], dry_run=True)
    assert dry["data"] == [{"id": first}]
    assert client.delete(f"/v1/dlq/{first}").json() == {"id": first, "object": "dead_letter", "deleted": True}
    assert client.delete(f"/v1/dlq/{first}").status_code == 404
    assert client.get(f"/v1/jobs/{first}").status_code == 404
    answer = post(client, "purge", code="poison", limit=1)
    assert (answer["data"], answer["has_more"]) == ([{"id": others[0]}], True)
    assert post(client, "purge", all=True, cursor=answer["cursor"])["data"] == [{"id": others[1]}]
    assert [key for key in store.scan_iter() if b"job_" in key] == []
    assert store.zcard(keys.job_index("default")) == 0
    anew = client.post("/v1/jobs", json=PROMPT, headers=headers)
    assert anew.status_code == 202
    assert anew.json()["id"] != first


def test_a_ledgers_message_finds_that_a_purged_job_is_done(
    redis_server: RedisServer, worker: ScriptedWorker, store: redis.Redis, tmp_path: Path
) -> None:
    settings = settings_for(redis_server.url).model_copy(update={"blobs": BlobSettings(url=str(tmp_path))})
    with serving(settings) as gateway, httpx2.Client(base_url=gateway.url, timeout=20) as client:
        (job_id,) = parked(client, worker)
        store.hset(keys.job(job_id), "ledger_receipt", "sqs")
        assert client.delete(f"/v1/dlq/{job_id}").json()["deleted"]
    mark = DoneMarks(FolderBlobs(tmp_path)).get(job_id)
    assert mark is not None
    assert (mark.state, mark.result) == ("DEAD", "")


def test_what_was_redriven_meanwhile_is_not_said_to_be_purged(
    client: httpx2.Client, worker: ScriptedWorker, store: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    redriven, other = parked(client, worker, 2)
    look = dead_letters.DeadLetters.page

    async def page(*args: Any, **named: Any) -> dead_letters.DeadLetterPage:
        found = await look(*args, **named)
        store.zrem(keys.dlq(LANE), redriven)
        return found

    monkeypatch.setattr(dead_letters.DeadLetters, "page", page)
    answer = post(client, "purge", all=True)
    assert answer["data"] == [{"id": other}]
    assert [(each["id"], each["error"]["code"]) for each in answer["refused"]] == [(redriven, "job_not_found")]
    assert store.exists(keys.job(redriven))


def test_nobody_purges_what_lives(client: httpx2.Client, worker: ScriptedWorker) -> None:
    alive = create(client)
    answer = post(client, "purge", ids=[alive])
    assert (answer["data"], [each["id"] for each in answer["refused"]]) == ([], [alive])
    assert client.get(f"/v1/jobs/{alive}").status_code == 200


@pytest.mark.parametrize(
    ("verb", "body", "param"),
    [
        ("purge", {}, "ids"),
        ("purge", {"ids": ["job_1"]}, "ids[0]"),
        ("purge", {"ids": []}, "ids"),
        ("redrive", {"limit": 101}, "limit"),
        ("redrive", {"cursor": "x"}, "cursor"),
        ("redrive", {"rate": 3}, "rate"),
        ("redrive", {"deadline_seconds": 0}, "deadline_seconds"),
        ("redrive", {"since": "yesterday"}, "since"),
    ],
)
def test_bad_bodies(client: httpx2.Client, verb: str, body: dict[str, Any], param: str) -> None:
    reply = client.post(f"/v1/dlq/{verb}", json=body)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=x", "limit"),
        ("colour=red", "colour"),
        ("cursor=1.2", "cursor"),
        ("model=a&model=a", "model"),
        ("metadata[a]=1&metadata[a]=2", "metadata[a]"),
    ],
)
def test_bad_queries(client: httpx2.Client, query: str, param: str) -> None:
    reply = client.get(f"/v1/dlq?{query}")
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)


def test_the_api_document_describes_it(client: httpx2.Client) -> None:
    document = client.get("/openapi.json").json()
    assert {"/v1/dlq", "/v1/dlq/{job_id}", "/v1/dlq/redrive", "/v1/dlq/purge"} <= set(document["paths"])
    assert "deadline_seconds" in document["components"]["schemas"]["RedriveBody"]["properties"]
