"""What clients get wrong: one clear error each, in OpenAI's shape, and nobody else is harmed."""

import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from openai import APIStatusError, OpenAI, UnprocessableEntityError

from gateway import submitting
from tests.integration.gateway.scripted_worker import MODEL, ScriptedWorker
from tests.integration.gateway.serving import Gateway

CHAT: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
ROUTES = ["/v1/chat/completions", "/v1/jobs"]
JSON = {"content-type": "application/json"}


def check(reply: httpx2.Response, status: int, code: str, param: str | None = None) -> None:
    """The error's shape, its status, code and param, and the headers every refusal has."""
    assert reply.status_code == status, reply.text
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["code"], error["param"]) == (code, param), error
    assert error["type"] == ("server_error" if status >= 500 else "invalid_request_error")
    assert len(error["message"]) > 10
    assert reply.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"model": "no-such"}, "model_not_found", "model"),
        ({"model": 7}, "invalid_request", "model"),
        ({"messages": []}, "invalid_request", "messages"),
        ({"messages": "hi"}, "invalid_request", "messages"),
        ({"messages": [{"role": "wizard", "content": "hi"}]}, "invalid_request", "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "invalid_request", "messages[0].content"),
        ({"temperature": -1}, "invalid_request", "temperature"),
        ({"temperature": 1e308}, "invalid_request", "temperature"),
        ({"temperature": "hot"}, "invalid_request", "temperature"),
        ({"top_p": 0}, "invalid_request", "top_p"),
        ({"top_k": 10**30}, "invalid_request", "top_k"),
        ({"max_tokens": 0}, "invalid_request", "max_tokens"),
        ({"max_tokens": -5}, "invalid_request", "max_tokens"),
        ({"max_tokens": 1.5}, "invalid_request", "max_tokens"),
        ({"max_tokens": 10**6}, "context_length_exceeded", "messages"),
        ({"messages": [{"role": "user", "content": "long " * 2000}]}, "context_length_exceeded", "messages"),
        ({"n": 2}, "unknown_parameter", "n"),
        ({"logprobs": 3}, "invalid_request", "logprobs"),
        ({"tools": []}, "unknown_parameter", "tools"),
        ({"no_such": 1}, "unknown_parameter", "no_such"),
    ],
)
def test_bad_fields(client: httpx2.Client, route: str, change: dict[str, Any], code: str, param: str) -> None:
    body = {**CHAT, **change}
    reply = client.post(route, content=json.dumps(body), headers=JSON)
    check(reply, 404 if code == "model_not_found" else 400, code, param)
    assert reply.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b'"x"',
        b'{"model": "\xff\xfe"}',
        json.dumps(CHAT).encode("utf-16"),
        b'{"temperature": NaN}',
        b"[" * 200_000,
        b'{"metadata":' * 800 + b"1" + b"}" * 800,
        b'{"model": "\\ud800"}',
    ],
)
def test_bad_bodies(client: httpx2.Client, route: str, raw: bytes) -> None:
    reply = client.post(route, content=raw, headers=JSON)
    assert reply.status_code == 400, reply.text
    assert reply.json()["error"]["code"] == "invalid_request"


@pytest.mark.parametrize("headers", [{"content-type": "text/plain"}, {**JSON, "content-encoding": "gzip"}])
def test_bodies_that_are_not_plain_json(client: httpx2.Client, headers: dict[str, str]) -> None:
    check(client.post("/v1/jobs", content=json.dumps(CHAT), headers=headers), 400, "invalid_request")


def test_a_body_without_a_content_type_is_read_as_json(client: httpx2.Client) -> None:
    assert client.post("/v1/jobs", content=json.dumps(CHAT)).status_code == 202


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_of_50_mb_is_refused_and_not_kept(client: httpx2.Client, gateway: Gateway, declared: bool) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(50):
            yield b" " * 1_000_000

    headers = {**JSON, "content-length": "50000000"} if declared else JSON
    reply = client.post("/v1/chat/completions", content=chunks(), headers=headers)
    check(reply, 413, "payload_too_large")
    assert reply.headers["x-should-retry"] == "false"
    assert client.get("/health/live").status_code == 200


def test_50_mb_in_the_official_client(openai: OpenAI) -> None:
    with pytest.raises(APIStatusError) as caught:
        openai.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "x" * 50_000_000}])
    assert (caught.value.status_code, caught.value.code) == (413, "payload_too_large")
    assert not isinstance(caught.value, UnprocessableEntityError)


def test_a_slow_body_is_given_up(client: httpx2.Client, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submitting, "BODY_TIMEOUT_S", 0.2)
    host, port = gateway.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as wire:
        wire.sendall(
            b"POST /v1/jobs HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{"
        )
        raw = b""
        while chunk := wire.recv(65536):
            raw += chunk
    assert raw.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in raw.lower()
    assert b'"code":"invalid_request"' in raw


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1/nope", 404),
        ("POST", "/v1/jobs/", 404),
        ("PUT", "/v1/models", 405),
        ("GET", "/v1/chat/completions", 405),
        ("PUT", "/v1/jobs", 405),
    ],
)
def test_unknown_routes_and_methods(client: httpx2.Client, method: str, path: str, status: int) -> None:
    check(client.request(method, path), status, "invalid_request")


def test_a_client_may_bring_its_own_request_id(client: httpx2.Client) -> None:
    assert client.get("/health/live", headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"
    assert client.get("/health/live", headers={"x-request-id": "x\ty"}).headers["x-request-id"].startswith("req_")


def test_garbage_instead_of_http_harms_nobody(client: httpx2.Client, gateway: Gateway) -> None:
    host, port = gateway.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as wire:
        wire.sendall(b"\x16\x03\x01\x00garbage\r\n\r\n")
        assert wire.recv(100).startswith(b"HTTP/1.1 400 ")
    assert client.get("/health/live").status_code == 200


def test_a_bug_of_ours_is_a_500_in_the_same_shape(
    client: httpx2.Client, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_: str) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(gateway.services.queue, "get", broken)
    reply = client.get("/v1/jobs/job_01jzzzzzzzzzzzzzzzzzzzzzzz")
    check(reply, 500, "internal_error")
    assert reply.headers["x-request-id"] in reply.json()["error"]["message"]


def test_others_go_on_meanwhile(client: httpx2.Client, worker: ScriptedWorker) -> None:
    job_id = client.post("/v1/jobs", json=CHAT).json()["id"]
    client.post("/v1/jobs", content=b"{", headers=JSON)
    worker.run("fine")
    assert client.get(f"/v1/jobs/{job_id}").json()["state"] == "succeeded"
