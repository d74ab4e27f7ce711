"""`/v1/jobs/<id>/events`: every token once, wherever the stream is cut and whatever the store has lost."""

import threading
from collections.abc import Iterator

import httpx2
import pytest
import redis

from headrace.contract.job import State
from headrace.queue.base import ReapRequest
from headrace.store import keys
from tests.integration.gateway.scripted_worker import MODEL, ScriptedWorker, wait_for
from tests.integration.gateway.sse_reader import Message, follow, ids_in, messages, text_of
from tests.unit.gateway.byte_model import ids_of

PIECES = ("Nai", "ve — 東", "", "京 EN", "D🙂", "🙃 and so o", "n")
TEXT = "Naive — 東京 "  # the stop string ends it


class Reader:
    """Follows a job in a thread of its own."""

    def __init__(self, client: httpx2.Client, job_id: str, cursor: str = "") -> None:
        self.found: list[Message] = []
        self._stream = self._read(client, job_id, cursor)
        self._thread = threading.Thread(target=lambda: self.found.extend(self._stream), daemon=True)
        self._thread.start()

    @staticmethod
    def _read(client: httpx2.Client, job_id: str, cursor: str) -> Iterator[Message]:
        yield from follow(client, job_id, cursor)

    def join(self) -> list[Message]:
        self._thread.join(15)
        assert not self._thread.is_alive(), "the stream did not end"
        return self.found


def submit(client: httpx2.Client, **fields: object) -> str:
    body = {"model": MODEL, "prompt": "go", "max_tokens": 200, **fields}
    return str(client.post("/v1/jobs", json=body).json()["id"])


def test_every_cut_joins_to_the_same_text(client: httpx2.Client, worker: ScriptedWorker) -> None:
    job_id = submit(client)
    worker.run(*PIECES)
    whole = follow(client, job_id)
    assert text_of(whole) == "".join(PIECES)
    assert ids_in(whole) == list(ids_of("".join(PIECES)))
    assert [message.data["seq"] for message in whole] == list(range(1, len(whole) + 1))
    assert [message.event for message in whole] == [message.data["type"] for message in whole]
    for cut in range(1, len(whole) + 1):
        assert whole[:cut] + follow(client, job_id, whole[cut - 1].id) == whole


def test_a_stop_string_that_spans_events_is_not_shown(client: httpx2.Client, worker: ScriptedWorker) -> None:
    job_id = submit(client, stop=["END"])
    worker.run("Naive — 東", "京 E", "N", "D")
    whole = follow(client, job_id)
    assert text_of(whole) == TEXT
    for cut in range(1, len(whole) + 1):
        assert text_of(whole[:cut] + follow(client, job_id, whole[cut - 1].id)) == TEXT
    assert client.get(f"/v1/jobs/{job_id}").json()["result"]["choices"][0]["text"] == TEXT


def test_the_cursor_may_stand_in_the_url(client: httpx2.Client, worker: ScriptedWorker) -> None:
    job_id = submit(client)
    worker.run(*PIECES)
    whole = follow(client, job_id)
    reply = client.get(f"/v1/jobs/{job_id}/events", params={"cursor": whole[3].id})
    assert list(messages([reply.content])) == whole[4:]


def test_two_listeners_hear_one_job_live(client: httpx2.Client, worker: ScriptedWorker) -> None:
    job_id = submit(client)
    readers = [Reader(client, job_id), Reader(client, job_id)]
    wait_for(lambda: worker.listeners(job_id))
    job = worker.claim()
    replies = [worker.say(job, piece) for piece in PIECES]
    worker.say(job, "", "length")
    worker.succeed(job)
    one, two = (reader.join() for reader in readers)
    assert one == two == follow(client, job_id)
    assert text_of(one) == "".join(PIECES)
    assert replies[0].listeners == 1, "one pub/sub connection for each process"


def test_a_lost_live_message_is_read_from_the_journal(
    client: httpx2.Client, worker: ScriptedWorker, store: redis.Redis
) -> None:
    """Kill the gateway's pub/sub connection in the middle: nothing is lost and nothing comes twice."""
    job_id = submit(client)
    reader = Reader(client, job_id)
    wait_for(lambda: worker.listeners(job_id))
    job = worker.claim()
    worker.say(job, "one ")
    store.client_kill_filter(_type="pubsub")
    worker.say(job, "two ")
    worker.say(job, "three", "stop")
    worker.succeed(job)
    assert text_of(reader.join()) == "one two three"


def test_a_store_that_lost_its_tail_numbers_anew_and_no_token_comes_twice(
    client: httpx2.Client, worker: ScriptedWorker, store: redis.Redis
) -> None:
    """The journal falls back to an earlier state, as after a crash without fsync, and the worker writes again."""
    job_id = submit(client)
    job = worker.claim()
    worker.say(job, "one ")
    kept = {key: store.dump(key) for key in (keys.job(job_id), keys.journal(job_id))}
    early = Reader(client, job_id)
    for piece in ("two ", "three ", "four ", "five "):
        worker.say(job, piece)
    with client.stream("GET", f"/v1/jobs/{job_id}/events") as reply:
        before = []
        for message in messages(reply.iter_raw()):
            before.append(message)
            if text_of(before).endswith("five "):
                break
    for key, value in kept.items():
        store.restore(key, 0, value, replace=True)  # type: ignore[arg-type]
    worker.rewind(job, len("one "))
    worker.say(job, "two three four five six", "stop")
    worker.succeed(job)
    after = follow(client, job_id, before[-1].id)
    for found in (before + after, early.join()):
        assert text_of(found) == "one two three four five six"
        assert ids_in(found) == list(ids_of("one two three four five six"))
        assert found[-1].event == "completed"


def test_a_second_attempt_goes_on_where_the_first_one_died(client: httpx2.Client, worker: ScriptedWorker) -> None:
    job_id = submit(client)
    reader = Reader(client, job_id)
    first = worker.claim()
    worker.say(first, "étude ")
    worker.queue.reap(ReapRequest(worker=worker.name, died=True))
    second = worker.claim()
    worker.rewind(second, len("étude ".encode()))
    worker.say(second, "goes on", "stop")
    worker.succeed(second)
    found = reader.join()
    assert text_of(found) == "étude goes on"
    assert [message.event for message in found][-3:] == ["resumed", "delta", "completed"]


def test_a_quiet_job_is_kept_alive_by_single_lines(client: httpx2.Client, worker: ScriptedWorker) -> None:
    job_id = submit(client)
    raw = b""
    with client.stream("GET", f"/v1/jobs/{job_id}/events") as reply:
        for chunk in reply.iter_raw():
            raw += chunk
            if raw.count(b": ping\n") == 2:
                break
    assert raw.endswith(b"\n\n: ping\n: ping\n")


def test_a_reader_that_leaves_does_not_stop_the_job(client: httpx2.Client, worker: ScriptedWorker) -> None:
    job_id = submit(client)
    with client.stream("GET", f"/v1/jobs/{job_id}/events") as reply:
        next(reply.iter_raw())
    wait_for(lambda: not worker.listeners(job_id))
    worker.run("done")
    assert worker.state(job_id) is State.SUCCEEDED


def test_events_past_their_retention_are_gone_and_the_result_is_not(
    client: httpx2.Client, worker: ScriptedWorker, store: redis.Redis
) -> None:
    job_id = submit(client)
    worker.run("done")
    cursor = follow(client, job_id)[2].id
    store.delete(keys.journal(job_id))
    for headers in ({}, {"Last-Event-ID": cursor}):
        reply = client.get(f"/v1/jobs/{job_id}/events", headers=headers)
        assert (reply.status_code, reply.json()["error"]["code"]) == (410, "journal_expired")
        assert reply.headers["link"] == f'</v1/jobs/{job_id}>; rel="alternate"'
        assert f"/v1/jobs/{job_id}" in reply.json()["error"]["message"]
    assert client.get(f"/v1/jobs/{job_id}").json()["result"]["choices"][0]["text"] == "done"


@pytest.mark.parametrize("cursor", ["x", "1.3", "1.3.999", "1.3.4-5", "9.3.4", "1.3.4\x00"])
def test_a_bad_cursor_is_refused(client: httpx2.Client, cursor: str) -> None:
    reply = client.get(f"/v1/jobs/{submit(client)}/events", params={"cursor": cursor})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "cursor")


def test_events_of_an_unknown_job_are_not_found(client: httpx2.Client) -> None:
    reply = client.get("/v1/jobs/job_01jzzzzzzzzzzzzzzzzzzzzzzz/events")
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "job_not_found")
