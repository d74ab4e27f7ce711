"""A job's events through a WebSocket, with a real client: cut and resumed, cancelled, talked nonsense to, stopped."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx2
import pytest
import redis
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from gateway import socket_session
from headrace.contract.errors import ErrorInfo
from headrace.contract.job import State
from headrace.store import keys
from tests.integration.gateway.scripted_worker import ScriptedWorker, wait_for
from tests.integration.gateway.serving import Gateway, serving, settings_for
from tests.integration.gateway.test_events import PIECES, submit
from tests.redis_server import RedisServer
from tests.unit.gateway.byte_model import ids_of

UNKNOWN = "job_01jzzzzzzzzzzzzzzzzzzzzzzz"


@contextmanager
def socket(url: str, job_id: str, cursor: str = "") -> Iterator[ClientConnection]:
    address = f"{url.replace('http', 'ws')}/v1/jobs/{job_id}/ws" + (f"?cursor={cursor}" if cursor else "")
    with connect(address, open_timeout=10, close_timeout=10) as connection:
        yield connection


def hear(connection: ClientConnection) -> dict[str, Any]:
    message = json.loads(connection.recv(timeout=10))
    assert isinstance(message, dict)
    return message


def rest(connection: ClientConnection) -> tuple[list[dict[str, Any]], int, str]:
    """Every message to the close, then its code and reason."""
    found = []
    with suppress(ConnectionClosed):
        while True:
            found.append(hear(connection))
    return found, connection.close_code or 0, connection.close_reason or ""


def text_of(messages: list[dict[str, Any]]) -> str:
    return "".join(message.get("text", "") for message in messages)


def test_every_cut_joins_to_the_same_text(gateway: Gateway, client: httpx2.Client, worker: ScriptedWorker) -> None:
    job_id = submit(client)
    worker.run(*PIECES)
    with socket(gateway.url, job_id) as connection:
        whole, code, _ = rest(connection)
    assert (text_of(whole), code) == ("".join(PIECES), 1000)
    assert [message["seq"] for message in whole] == list(range(1, len(whole) + 1))
    assert [i for message in whole for i in message.get("token_ids", [])] == list(ids_of("".join(PIECES)))
    for cut in range(1, len(whole) + 1):
        with socket(gateway.url, job_id, whole[cut - 1]["cursor"]) as connection:
            assert whole[:cut] + rest(connection)[0] == whole


def test_a_cursor_of_one_way_serves_the_other(gateway: Gateway, client: httpx2.Client, worker: ScriptedWorker) -> None:
    job_id = submit(client)
    worker.run(*PIECES)
    with socket(gateway.url, job_id) as connection:
        whole, _, _ = rest(connection)
    reply = client.get(f"/v1/jobs/{job_id}/events", params={"cursor": whole[3]["cursor"]})
    data = [json.loads(line[6:]) for line in reply.text.splitlines() if line.startswith("data: ")]
    assert data == [{name: value for name, value in each.items() if name != "cursor"} for each in whole[4:]]


def test_a_cut_connection_is_resumed_live(gateway: Gateway, client: httpx2.Client, worker: ScriptedWorker) -> None:
    job_id = submit(client)
    job = worker.claim()
    with socket(gateway.url, job_id) as connection:
        before = [hear(connection), hear(connection)]
        worker.say(job, "one ")
        before.append(hear(connection))
        connection.socket.close()  # no goodbye
    worker.say(job, "two ")
    with socket(gateway.url, job_id, before[-1]["cursor"]) as connection:
        after = [hear(connection)]
        worker.say(job, "three", "stop")
        worker.succeed(job)
        after += rest(connection)[0]
    assert text_of(before + after) == "one two three"
    assert after[-1]["type"] == "completed"


def test_cancel_is_answered_by_the_event(gateway: Gateway, client: httpx2.Client, worker: ScriptedWorker) -> None:
    job_id = submit(client)
    worker.claim()
    with socket(gateway.url, job_id) as connection:
        connection.send('{"type": "cancel"}')
        found, code, _ = rest(connection)
    assert [message["type"] for message in found] == ["accepted", "started", "cancelled"]
    assert code == 1000
    assert worker.state(job_id) is State.CANCELLED


def test_ping_and_nonsense_are_answered_and_the_events_go_on(
    gateway: Gateway, client: httpx2.Client, worker: ScriptedWorker
) -> None:
    job_id = submit(client)
    with socket(gateway.url, job_id) as connection:
        assert hear(connection)["type"] == "accepted"
        connection.send('{"type": "ping"}')
        assert hear(connection) == {"type": "pong"}
        for said in ("", "{", "[]", "7", '{"type": "sing"}', '{"type": ["ping"]}', b'{"type": "ping"}'):
            connection.send(said)
            answer = hear(connection)
            assert (answer["type"], answer["error"]["code"]) == ("error", "invalid_request"), said
            assert len(answer["error"]["message"]) > 10
        worker.run("fine")
        found, code, _ = rest(connection)
    assert (text_of(found), code) == ("fine", 1000)


def test_too_much_nonsense_closes_the_connection_and_not_the_job(
    gateway: Gateway, client: httpx2.Client, worker: ScriptedWorker
) -> None:
    job_id = submit(client)
    with socket(gateway.url, job_id) as connection:
        for _ in range(socket_session.MOST_GARBAGE):
            connection.send("nonsense")
        found, code, _ = rest(connection)
    assert ([message["type"] for message in found].count("error"), code) == (socket_session.MOST_GARBAGE, 1008)
    worker.run("fine")
    assert worker.state(job_id) is State.SUCCEEDED


@pytest.mark.parametrize(("size", "code"), [(10_000, 1008), (100_000, 1009)])
def test_a_message_that_is_too_long_closes_the_connection(
    gateway: Gateway, client: httpx2.Client, size: int, code: int
) -> None:
    with socket(gateway.url, submit(client)) as connection:
        connection.send('"' + "x" * size + '"')
        assert rest(connection)[1] == code


def test_errors_are_said_before_the_close(
    gateway: Gateway, client: httpx2.Client, worker: ScriptedWorker, store: redis.Redis
) -> None:
    job_id = submit(client)
    worker.run("done")
    with socket(gateway.url, job_id, "nonsense") as connection:
        bad, bad_code, reason = rest(connection)
    assert (bad[0]["error"]["param"], bad_code, reason) == ("cursor", 4400, "invalid_request")
    store.delete(keys.journal(job_id))
    with socket(gateway.url, job_id) as connection:
        expired, expired_code, _ = rest(connection)
    assert (expired[0]["error"]["code"], expired_code) == ("journal_expired", 4410)
    assert f"/v1/jobs/{job_id}" in expired[0]["error"]["message"]
    for unknown in (UNKNOWN, "nonsense"):
        with socket(gateway.url, unknown) as connection:
            found, code, reason = rest(connection)
        assert (found[0]["error"]["code"], code, reason) == ("job_not_found", 4404, "job_not_found")


def test_a_job_that_has_ended_is_told_to_its_end(
    gateway: Gateway, client: httpx2.Client, worker: ScriptedWorker
) -> None:
    job_id = submit(client)
    worker.run("done")
    with socket(gateway.url, job_id) as connection:
        with suppress(ConnectionClosed):
            connection.send('{"type": "cancel"}')
        found, code, _ = rest(connection)
    assert ([message["type"] for message in found][-1], code) == ("completed", 1000)
    assert worker.state(job_id) is State.SUCCEEDED


def test_a_reader_that_leaves_does_not_stop_the_job_and_is_not_followed_any_more(
    gateway: Gateway, client: httpx2.Client, worker: ScriptedWorker
) -> None:
    job_id = submit(client)
    with socket(gateway.url, job_id) as connection:
        hear(connection)
        wait_for(lambda: worker.listeners(job_id))
    wait_for(lambda: not worker.listeners(job_id))
    worker.run("done")
    assert worker.state(job_id) is State.SUCCEEDED


def test_a_client_that_reads_nothing_is_given_up(
    gateway: Gateway, client: httpx2.Client, worker: ScriptedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no longer followed once a send has waited too long, and what it missed stays in the journal."""
    monkeypatch.setattr(socket_session, "SEND_TIMEOUT_S", 0.3)
    job_id = submit(client)
    address = f"{gateway.url.replace('http', 'ws')}/v1/jobs/{job_id}/ws"
    with connect(address, max_queue=1, max_size=None, close_timeout=0.1):  # buffers one frame and then reads no more
        wait_for(lambda: worker.listeners(job_id))
        for _ in range(3):
            worker.queue.retry(worker.claim().lease, 1, ErrorInfo("engine_error", "x" * 4_000_000))
        wait_for(lambda: not worker.listeners(job_id))
    assert worker.state(job_id) is not State.CANCELLED


def test_a_gateway_that_stops_sends_its_readers_elsewhere(redis_server: RedisServer, worker: ScriptedWorker) -> None:
    with serving(settings_for(redis_server.url)) as going, httpx2.Client(base_url=going.url) as client:
        job_id = submit(client)
        with socket(going.url, job_id) as connection:
            hear(connection)
            going.stop()
            found, code, _ = rest(connection)
    assert code == 1012
    assert all(message["type"] == "error" for message in found)
    assert worker.state(job_id) is State.QUEUED


def test_the_connection_is_counted_and_has_a_request_id(
    gateway: Gateway, client: httpx2.Client, worker: ScriptedWorker
) -> None:
    job_id = submit(client)
    worker.run("done")
    with socket(gateway.url, job_id) as connection:
        assert connection.response is not None
        assert connection.response.headers["x-request-id"].startswith("req_")
        rest(connection)

    wait_for(lambda: "101" in statuses(client))


def test_a_connection_is_counted_with_the_status_of_our_error_and_never_with_what_its_client_says(
    gateway: Gateway, client: httpx2.Client, worker: ScriptedWorker
) -> None:
    before = statuses(client)
    with socket(gateway.url, UNKNOWN) as connection:
        rest(connection)
    with socket(gateway.url, submit(client)) as connection:
        connection.close(code=4503)
    wait_for(lambda: (statuses(client) - before).total() == 2)
    assert statuses(client) - before == {"404": 1, "101": 1}


def statuses(client: httpx2.Client) -> Counter[str]:
    """How many sockets were counted so far, by status."""
    found = re.findall(r'requests_total{method="WEBSOCKET",.*,status="(\d+)"} (\S+)', client.get("/metrics").text)
    return Counter({status: int(float(count)) for status, count in found})


def test_plain_http_is_told_to_upgrade(client: httpx2.Client) -> None:
    reply = client.get(f"/v1/jobs/{UNKNOWN}/ws")
    assert (reply.status_code, reply.headers["upgrade"]) == (426, "websocket")
    assert f"/v1/jobs/{UNKNOWN}/events" in reply.json()["error"]["message"]


def test_other_addresses_are_no_sockets(gateway: Gateway) -> None:
    with (
        pytest.raises((InvalidStatus, ConnectionClosedError)),
        connect(f"{gateway.url.replace('http', 'ws')}/v1/models"),
    ):
        pass
    assert httpx2.get(f"{gateway.url}/health/live").status_code == 200
