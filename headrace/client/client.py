"""The client SDK: submit work, wait for it, follow it. Knows HTTP and waiting; what is said is decided elsewhere.

Its twin for event loops is `async_client`; what both would decide lies in `core`, `attempts`, `following`, `waiting`,
`listing` and `letters`, which do no I/O.
"""

import random
import time
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self, Unpack

import httpx2

from headrace.client import core, endpoint, listing
from headrace.client.attempts import Attempts
from headrace.client.dead_letters import DeadLetters
from headrace.client.following import Following
from headrace.client.gateways import Gateways
from headrace.client.handle import JobHandle
from headrace.client.result import JobView, ModelView, read_model, read_model_ids, read_view, read_workers
from headrace.client.retry import Patience
from headrace.client.waiting import Rounds
from headrace.contract.errors import JobNotFound
from headrace.contract.events import Event
from headrace.contract.job import JobClass


class Client:
    """Talks to a fleet. Use it from as many threads as you like; close it, or use it in a `with`.

    `url` and `api_key` default to HEADRACE_URL (then http://127.0.0.1:8080) and HEADRACE_API_KEY. `url` may name
    several gateways of one fleet, with commas between or as a list: a lost connection, a 502, 503 or 504 is said again
    to the next one at once, and streams go on there at their cursor. When all were tried, and after a 429 or a 500,
    calls are repeated with growing pauses until `patience` runs out: every submit carries an idempotency key, so a
    repeated one is the same job.
    """

    def __init__(
        self,
        url: endpoint.Urls | None = None,
        api_key: str | None = None,
        *,
        patience: Patience | None = None,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        where = endpoint.Endpoint.of(url, api_key)
        self._gateways = Gateways(where.urls)
        self._patience = patience or Patience()
        self._http = httpx2.Client(headers=where.headers, limits=endpoint.LIMITS, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    @property
    def url(self) -> str:
        """The gateway that is asked first now."""
        return self._gateways.url

    @property
    def dlq(self) -> DeadLetters:
        """The dead jobs that wait for a person: list, show, redrive, purge."""
        return DeadLetters(self._send)

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
        wait: float | None = None,
        **sampling: Any,
    ) -> JobHandle:
        """Queue one job and return as soon as it is durable, or with `wait` when it has ended or so many seconds are
        over: for a short job that saves asking again.

        Exactly one of `messages` (a chat) and `prompt` (a completion). `sampling` takes the other fields of the
        OpenAI routes: temperature, top_p, top_k, min_p, penalties, seed, stop. Raises what the gateway refuses it
        with: InvalidRequest, ContextLengthExceeded, ModelNotFound, QueueFull, ...
        """
        call = core.submit_call(
            model=model,
            messages=messages,
            prompt=prompt,
            max_tokens=max_tokens,
            job_class=job_class,
            deadline_seconds=deadline_seconds,
            metadata=metadata,
            idempotency_key=idempotency_key,
            wait=wait,
            sampling=sampling,
        )
        job = core.read_json(self._send(call))
        return JobHandle(self, core.read_id(job), None if wait is None else read_view(job))

    def job(self, job_id: str) -> JobHandle:
        """A handle on a job submitted earlier, by whomever. Asks the gateway nothing yet."""
        return JobHandle(self, job_id)

    def jobs(self, *, limit: int | None = None, **wanted: Unpack[listing.Filters]) -> Iterator[JobView]:
        """The jobs there are, newest first, fetched page by page as they are taken; without their results.

        Filters: `state` (one or several states, or `active` or `ended`), `model`, `job_class`, `created_after`,
        `created_before`, and `metadata`, which must match in every pair given.
        """
        pages = listing.Pages(wanted, limit)
        while call := pages.next_call():
            yield from pages.read(self._send(call))

    def models(self) -> list[str]:
        """Ids of the models that can be asked for."""
        return read_model_ids(core.read_json(self._send(core.models_call())))

    def model(self, model_id: str) -> ModelView:
        """`GET /v1/models/<id>`, also by an alias. Raises ModelNotFound."""
        return read_model(core.read_json(self._send(core.model_call(model_id))))

    def fetch(self, job_id: str) -> JobView:
        """`GET /v1/jobs/<id>`. Raises JobNotFound."""
        return read_view(core.read_json(self._send(core.job_call(job_id))))

    def replay(
        self,
        job_id: str,
        *,
        any_digest: bool = False,
        job_class: JobClass | str | None = None,
        deadline_seconds: float | None = None,
        idempotency_key: str | None = None,
    ) -> JobHandle:
        """Run an ended job's frozen request again, seed and all, on a worker of the numerics digest that it was made
        with; its tokens are then the same, if all is well. `headrace replay` compares the two.

        With `any_digest` any worker of the same model revision may take it. Raises JobNotFound, RevisionGone, and
        InvalidRequest for a job that goes on or was never begun.
        """
        call = core.replay_call(
            job_id,
            any_digest=any_digest,
            job_class=job_class,
            deadline_seconds=deadline_seconds,
            idempotency_key=idempotency_key,
        )
        return JobHandle(self, core.read_id(core.read_json(self._send(call))))

    def workers(self) -> list[dict[str, Any]]:
        """Who is alive, as `/health/fleet` has it: id, lane, state, revision, digest and so on of each worker."""
        return read_workers(core.read_json(self._send(core.workers_call())))

    def cancel(self, job_id: str) -> JobView:
        """`DELETE /v1/jobs/<id>`, and how the job stands after it; one that had ended stays as it was."""
        self._send(core.cancel_call(job_id))
        return self.fetch(job_id)

    def as_completed(self, handles: Iterable[JobHandle], timeout: float | None = None) -> Iterator[JobHandle]:
        """Each handle once, in the order in which the jobs end, however they end: `wait()` then returns or raises
        at once. Raises TimeoutError when `timeout` seconds pass first; the jobs go on."""
        rounds = Rounds(handles, timeout, time.monotonic())
        while asked := rounds.take():
            for handle in asked:
                if _ended(handle):
                    yield handle
                else:
                    rounds.put_back(handle)
            time.sleep(rounds.pause(time.monotonic()))

    def events(self, job_id: str, cursor: str = "") -> Iterator[tuple[Event, str]]:
        """A job's events and the cursor behind each, from `cursor` to the last one, with no gap and no repeat.

        A lost connection or a 5xx is followed by a new one at the cursor. Raises JobNotFound, JournalExpired, and
        NoProgress when nothing at all was heard for the time of `patience`; pings of a waiting job count as heard.
        """
        following = Following(self._gateways, job_id, cursor, self._patience, time.monotonic())
        while True:
            yield from self._connection(following)
            if following.ended or (following.doubtful and self.fetch(job_id).ended):
                return
            time.sleep(following.pause(time.monotonic(), random.random()))

    def _connection(self, following: Following) -> Iterator[tuple[Event, str]]:
        """One connection's worth of events, until it ends or leaves a gap."""
        call = following.open()
        outcome: core.Outcome | None = None
        try:
            with self._http.stream(
                call.method, following.url + call.path, headers=call.headers, timeout=endpoint.STREAM_TIMEOUT
            ) as response:
                if response.status_code >= 400:
                    outcome, self._gateways.met = endpoint.reply_of(response, response.read()), True
                    return
                if outcome := endpoint.no_events(response, self._gateways):
                    return
                for chunk in response.iter_bytes():
                    for shown in following.feed(chunk, time.monotonic()):
                        yield shown
                        following.heard(time.monotonic())
                    if following.spoilt:
                        return
        except httpx2.RequestError as error:
            outcome = endpoint.broken_by(error, met=self._gateways.met)
        finally:
            following.close(outcome)

    def _send(self, call: core.Call) -> core.Reply:
        attempts = Attempts(self._gateways, call, self._patience, time.monotonic())
        while True:
            judged = attempts.judge(self._try(attempts.url, call), time.monotonic(), random.random())
            if isinstance(judged, core.Reply):
                return judged
            time.sleep(judged)

    def _try(self, url: str, call: core.Call) -> core.Outcome:
        try:
            response = self._http.request(
                call.method,
                url + call.path,
                headers=endpoint.headers_of(call),
                content=call.content,
                timeout=endpoint.timeout_of(call),
            )
        except httpx2.RequestError as error:
            return endpoint.broken_by(error, met=self._gateways.met)
        return endpoint.outcome_of(response, call, self._gateways)


def _ended(handle: JobHandle) -> bool:
    try:
        return handle.refresh().ended
    except JobNotFound:
        return True  # its `wait` says so; the others are still waited for
