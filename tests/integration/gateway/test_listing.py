"""`GET /v1/jobs`: pages, filters and an index that loses its dead entries."""

from typing import Any
from urllib.parse import urlencode

import httpx2
import pytest
import redis

from headrace.contract.errors import ErrorInfo
from headrace.store import job_index, keys
from tests.integration.gateway.scripted_worker import MODEL, ScriptedWorker, wait_for

PROMPT = {"model": MODEL, "prompt": "go"}
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
INDEX = keys.job_index("default")


def create(client: httpx2.Client, **fields: Any) -> str:
    return str(client.post("/v1/jobs", json={**PROMPT, **fields}).json()["id"])


def listed(client: httpx2.Client, **parameters: Any) -> dict[str, Any]:
    reply = client.get("/v1/jobs", params=parameters)
    assert reply.status_code == 200, reply.text
    page: dict[str, Any] = reply.json()
    assert page["object"] == "list"
    return page


def ids_in(page: dict[str, Any]) -> list[str]:
    return [job["id"] for job in page["data"]]


def test_newest_first_and_without_results(client: httpx2.Client, worker: ScriptedWorker) -> None:
    ids = [create(client, metadata={"n": str(n)}) for n in range(3)]
    worker.run("done")
    page = listed(client)
    assert ids_in(page) == ids[::-1]
    assert (page["first_id"], page["last_id"], page["has_more"]) == (ids[2], ids[0], False)
    assert page["data"][2]["state"] == "succeeded"
    whole = client.get(f"/v1/jobs/{ids[0]}").json()
    del whole["result"]
    assert page["data"][2] == whole


def test_no_jobs_at_all(client: httpx2.Client) -> None:
    page = listed(client)
    assert page == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


@pytest.mark.parametrize("same_time", [True, False])
def test_pages_join_to_the_whole_list_both_ways(
    client: httpx2.Client, store: redis.Redis, monkeypatch: pytest.MonkeyPatch, same_time: bool
) -> None:
    """Also where more jobs than are read at once were born in one millisecond."""
    monkeypatch.setattr(job_index, "BATCH", 3)
    ids = [create(client) for _ in range(11)]
    if same_time:
        store.zadd(INDEX, dict.fromkeys(ids, 1_700_000_000_000))
    whole = ids_in(listed(client))
    assert sorted(whole) == sorted(ids)
    found: list[str] = []
    after: dict[str, str] = {}
    while True:
        page = listed(client, limit=4, **after)
        found += ids_in(page)
        after = {"after": page["last_id"]}
        if not page["has_more"]:
            break
    assert found == whole
    back = listed(client, limit=4, before=whole[-1])
    assert (ids_in(back), back["has_more"]) == (whole[6:10], True)
    front = listed(client, limit=100, before=back["first_id"])
    assert (ids_in(front), front["has_more"]) == (whole[:6], False)


def test_filters(client: httpx2.Client, worker: ScriptedWorker) -> None:
    done = create(client, metadata={"batch": "7", "row": "1"})
    worker.run("done")
    failed = create(client, metadata={"batch": "7", "row": "2"})
    worker.fail(worker.claim(), ErrorInfo("engine_error", "It broke."))
    waiting = create(client, **{"class": "batch"})
    chat = str(client.post("/v1/jobs", json=CHAT).json()["id"])
    times = {job["id"]: job["created_at"] for job in listed(client)["data"]}
    cases: list[tuple[list[tuple[str, str]], list[str]]] = [
        ([("state", "succeeded")], [done]),
        ([("state", "succeeded,failed")], [failed, done]),
        ([("state", "failed"), ("state", "queued")], [chat, waiting, failed]),
        ([("state", "active")], [chat, waiting]),
        ([("state", "ended")], [failed, done]),
        ([("class", "batch")], [waiting]),
        ([("kind", "chat")], [chat]),
        ([("model", MODEL)], [chat, waiting, failed, done]),
        ([("model", "byte-alias")], [chat, waiting, failed, done]),
        ([("model", "no-such")], []),
        ([("metadata[batch]", "7")], [failed, done]),
        ([("metadata[batch]", "7"), ("metadata[row]", "2")], [failed]),
        ([("metadata[batch]", "8")], []),
        (
            [("created_after", str(times[waiting]))],
            [j for j in (chat, waiting, failed, done) if times[j] >= times[waiting]],
        ),
        (
            [("created_before", str(times[failed]))],
            [j for j in (chat, waiting, failed, done) if times[j] <= times[failed]],
        ),
        ([("kind", "completion"), ("state", "ended"), ("limit", "1")], [failed]),
    ]
    for parameters, expected in cases:
        assert ids_in(client.get(f"/v1/jobs?{urlencode(parameters)}").json()) == expected, parameters


def test_bad_parameters(client: httpx2.Client) -> None:
    cases = [
        ("limit=0", "invalid_request", "limit"),
        ("limit=101", "invalid_request", "limit"),
        ("limit=ten", "invalid_request", "limit"),
        ("limit=1&limit=2", "invalid_request", "limit"),
        ("after=job_1", "invalid_request", "after"),
        ("after=", "invalid_request", "after"),
        ("after=job_01jzzzzzzzzzzzzzzzzzzzzzzz&before=job_01jzzzzzzzzzzzzzzzzzzzzzzz", "invalid_request", "before"),
        ("state=asleep", "invalid_request", "state"),
        ("state=", "invalid_request", "state"),
        ("class=urgent", "invalid_request", "class"),
        ("class=BATCH", "invalid_request", "class"),
        ("kind=poem", "invalid_request", "kind"),
        ("model=", "invalid_request", "model"),
        ("created_after=-1", "invalid_request", "created_after"),
        ("created_before=yesterday", "invalid_request", "created_before"),
        ("after=job_8zzzzzzzzzzzzzzzzzzzzzzzzz", "invalid_request", "after"),
        ("metadata=x", "unknown_parameter", "metadata"),
        ("order=asc", "unknown_parameter", "order"),
    ]
    for parameters, code, param in cases:
        reply = client.get(f"/v1/jobs?{parameters}")
        assert reply.status_code == 400, reply.text
        assert (reply.json()["error"]["code"], reply.json()["error"]["param"]) == (code, param)


def test_a_cursor_of_a_job_that_never_was_has_a_place_by_its_time(client: httpx2.Client) -> None:
    job_id = create(client)
    assert ids_in(listed(client, before="job_00000000000000000000000000")) == [job_id]
    assert ids_in(listed(client, after="job_7zzzzzzzzzzzzzzzzzzzzzzzzz")) == [job_id]


def test_a_search_that_finds_little_goes_on_from_where_it_looked_last(
    client: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_index, "BATCH", 2)
    monkeypatch.setattr(job_index, "MOST_EXAMINED", 4)
    wanted = create(client, metadata={"rare": "yes"})
    others = [create(client) for _ in range(6)]
    page = listed(client, **{"metadata[rare]": "yes"})
    assert (page["data"], page["first_id"], page["last_id"], page["has_more"]) == ([], None, others[2], True)
    page = listed(client, **{"metadata[rare]": "yes", "after": page["last_id"]})
    assert (ids_in(page), page["has_more"]) == ([wanted], False)


def test_entries_without_a_record_are_dropped(client: httpx2.Client, store: redis.Redis) -> None:
    ids = [create(client) for _ in range(5)]
    for gone in (ids[1], ids[3]):
        store.delete(keys.job(gone))
    assert ids_in(listed(client)) == [ids[4], ids[2], ids[0]]
    assert store.zcard(INDEX) == 3
    # A cursor that is gone has its place all the same.
    assert ids_in(listed(client, after=ids[3])) == [ids[2], ids[0]]


def test_a_gateway_drops_them_unasked(
    client: httpx2.Client, store: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In batches, round and round: the index of jobs that nobody lists does not grow for ever."""
    monkeypatch.setattr(job_index, "BATCH", 2)
    ids = [create(client) for _ in range(7)]
    for gone in ids[2:6]:
        store.delete(keys.job(gone))
    wait_for(lambda: store.zcard(INDEX) == 3)
    assert ids_in(listed(client)) == [ids[6], ids[1], ids[0]]
