"""The client SDK: submit work, wait for it, follow it. Knows HTTP and waiting; what is said is decided in `core`."""

import os
import random
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self

import httpx2

from headrace.client import core
from headrace.client.handle import JobHandle
from headrace.client.result import JobView, read_view
from headrace.client.retry import Failure, Patience
from headrace.client.sse import Message, Parser
from headrace.client.stream_state import StreamState, Verdict
from headrace.contract.errors import HeadraceError, JobNotFound
from headrace.contract.events import Event
from headrace.contract.job import JobClass

_CONNECT_S = 5.0
_READ_S = 30.0
_STREAM_READ_S = 45.0  # three keep-alive pings
_POLLED_AT_ONCE = 16
_POLL_S = 0.25


class Client:
    """Talks to one gateway. Use it from as many threads as you like; close it, or use it in a `with`.

    `url` and `api_key` default to HEADRACE_URL (then http://127.0.0.1:8080) and HEADRACE_API_KEY.
    Calls are repeated after a lost connection, a 429 or a 5xx until `patience` runs out: every submit carries an
    idempotency key, so a repeated one is the same job.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        patience: Patience | None = None,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        self.url = (url or os.environ.get("HEADRACE_URL") or core.DEFAULT_URL).rstrip("/")
        api_key = api_key or os.environ.get("HEADRACE_API_KEY")
        self._patience = patience or Patience()
        self._http = httpx2.Client(
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx2.Timeout(_READ_S, connect=_CONNECT_S),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=32),
            transport=transport,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def submit(
        self,
        *,
        model: str,
        messages: core.Chat | None = None,
        prompt: str | None = None,
        max_tokens: int | None = None,
        job_class: JobClass | str | None = None,
        deadline_seconds: float | None = None,
        metadata: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        **sampling: Any,
    ) -> JobHandle:
        """Queue one job and return as soon as it is durable.

        Exactly one of `messages` (a chat) and `prompt` (a completion). `sampling` takes the other fields of the
        OpenAI routes: temperature, top_p, top_k, min_p, penalties, seed, stop. Raises what the gateway refuses it
        with: InvalidRequest, ContextLengthExceeded, ModelNotFound, QueueFull, ...
        """
        fields = {
            "max_tokens": max_tokens,
            "class": None if job_class is None else str(job_class),
            "deadline_seconds": deadline_seconds,
            "metadata": None if metadata is None else dict(metadata),
            **sampling,
        }
        call = core.submit_call(
            model=model, messages=messages, prompt=prompt, idempotency_key=idempotency_key, fields=fields
        )
        return JobHandle(self, str(core.read_json(self._send(call))["id"]))

    def job(self, job_id: str) -> JobHandle:
        """A handle on a job submitted earlier, by whomever. Asks the gateway nothing yet."""
        return JobHandle(self, job_id)

    def models(self) -> list[str]:
        """Ids of the models that can be asked for."""
        return [str(model["id"]) for model in core.read_json(self._send(core.models_call()))["data"]]

    def fetch(self, job_id: str) -> JobView:
        """`GET /v1/jobs/<id>`. Raises JobNotFound."""
        return read_view(core.read_json(self._send(core.job_call(job_id))))

    def cancel(self, job_id: str) -> JobView:
        """`DELETE /v1/jobs/<id>`, and how the job stands after it; one that had ended stays as it was."""
        self._send(core.cancel_call(job_id))
        return self.fetch(job_id)

    def as_completed(self, handles: Iterable[JobHandle], timeout: float | None = None) -> Iterator[JobHandle]:
        """Each handle once, in the order in which the jobs end, however they end: `wait()` then returns or raises
        at once. Raises TimeoutError when `timeout` seconds pass first; the jobs go on."""
        pending = deque(handles)
        give_up_at = None if timeout is None else time.monotonic() + timeout
        while pending:
            ended = 0
            for _ in range(min(_POLLED_AT_ONCE, len(pending))):
                handle = pending.popleft()
                if _ended(handle):
                    ended += 1
                    yield handle
                else:
                    pending.append(handle)
            if pending and not ended:
                if give_up_at is not None and time.monotonic() >= give_up_at:
                    raise TimeoutError(f"{len(pending)} jobs have not ended within {timeout} s; they go on.")
                time.sleep(_POLL_S)

    def events(self, job_id: str, cursor: str = "") -> Iterator[tuple[Event, str]]:
        """A job's events and the cursor behind each, from `cursor` to the last one, with no gap and no repeat.

        A lost connection or a 5xx is followed by a new one at the cursor. Raises JobNotFound, JournalExpired, and
        NoProgress when nothing at all was heard for the time of `patience`; pings of a waiting job count as heard.
        """
        state, empty = StreamState(time.monotonic(), cursor), 0
        while True:
            failure = Failure(0)
            error: HeadraceError | None = None
            try:
                heard = yield from self._follow(job_id, state)
                empty = 0 if heard else empty + 1
                # Once may be a gateway that stops; twice, and an ended job, is a cursor behind the last event.
                if empty > 1 and self.fetch(job_id).ended:
                    return
            except httpx2.TransportError:
                pass  # the same as a connection that ended too early: go on at the cursor
            except _Refused as refusal:
                failure, error = core.failure_of(refusal.reply), core.error_of(refusal.reply)
            if state.ended:
                return
            now = time.monotonic()
            delay = state.cut(failure, self._patience, now, random.random())
            if delay is None:
                raise error or core.silent(job_id, state.silent_s(now))
            time.sleep(delay)

    def _follow(self, job_id: str, state: StreamState) -> Generator[tuple[Event, str], None, int]:
        """One connection's worth of events, until it ends or leaves a gap; how many messages there were."""
        count = 0
        for message in self._messages(job_id, state.cursor):
            state.heard(time.monotonic())
            event = core.read_event(message.data) if message else None
            if message is None or event is None:
                continue
            count += 1
            match state.take(event, message.id):
                case Verdict.SHOW:
                    yield event, message.id
                    state.heard(time.monotonic())  # the reader's own time is not the server's silence
                case Verdict.GAP:
                    break
        return count

    def _messages(self, job_id: str, cursor: str) -> Iterator[Message | None]:
        """One connection's messages; None for bytes that complete none, such as a ping."""
        call, parser = core.events_call(job_id, cursor), Parser()
        timeout = httpx2.Timeout(_STREAM_READ_S, connect=_CONNECT_S)
        with self._http.stream(call.method, self.url + call.path, headers=call.headers, timeout=timeout) as response:
            if response.status_code >= 400:
                raise _Refused(_reply(response))
            for chunk in response.iter_bytes():
                yield from parser.feed(chunk) or (None,)

    def _send(self, call: core.Call) -> core.Reply:
        failures, began = 0, time.monotonic()
        error: HeadraceError
        while True:
            try:
                response = self._http.request(call.method, self.url + call.path, headers=call.headers, json=call.json)
            except httpx2.TransportError as broken:
                failure, error = Failure(0), core.unreachable(self.url, str(broken) or type(broken).__name__)
            else:
                reply = _reply(response)
                if reply.status < 400:
                    return reply
                failure, error = core.failure_of(reply), core.error_of(reply)
            failures += 1
            delay = self._patience.delay(failure, failures, time.monotonic() - began, random.random())
            if delay is None:
                raise error
            time.sleep(delay)


def _ended(handle: JobHandle) -> bool:
    try:
        return handle.refresh().ended
    except JobNotFound:
        return True  # its `wait` says so; the others are still waited for


class _Refused(Exception):
    def __init__(self, reply: core.Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


def _reply(response: httpx2.Response) -> core.Reply:
    headers = {name.lower(): value for name, value in response.headers.items()}
    return core.Reply(response.status_code, headers, response.read())
