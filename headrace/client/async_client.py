"""The client SDK for event loops. Knows HTTP and waiting; decides nothing that the sync client would decide too."""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self, Unpack

import httpx2

from headrace.client import core, endpoint, listing
from headrace.client.async_dead_letters import AsyncDeadLetters
from headrace.client.async_handle import AsyncJobHandle
from headrace.client.attempts import Attempts
from headrace.client.following import Following
from headrace.client.gateways import Gateways
from headrace.client.result import JobView, ModelView, read_model, read_model_ids, read_view, read_workers
from headrace.client.retry import Patience
from headrace.client.waiting import Rounds
from headrace.contract.errors import JobNotFound
from headrace.contract.events import Event
from headrace.contract.job import JobClass


class AsyncClient:
    """Talks to a fleet, from as many tasks of one event loop as you like. Use it in an `async with`, or `aclose`.

    Arguments, repeats and errors are those of `Client`. Cancelling a task closes the connection it waited on; the job
    goes on unless it is cancelled itself. Its generators may be left early: wrap them in `contextlib.aclosing` where
    the connection must be gone at once.
    """

    def __init__(
        self,
        url: endpoint.Urls | None = None,
        api_key: str | None = None,
        *,
        patience: Patience | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        where = endpoint.Endpoint.of(url, api_key)
        self._gateways = Gateways(where.urls)
        self._patience = patience or Patience()
        self._http = httpx2.AsyncClient(headers=where.headers, limits=endpoint.LIMITS, transport=transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._http.aclose()

    @property
    def url(self) -> str:
        """As `Client.url`."""
        return self._gateways.url

    @property
    def dlq(self) -> AsyncDeadLetters:
        """As `Client.dlq`."""
        return AsyncDeadLetters(self._send)

    async def submit(
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
    ) -> AsyncJobHandle:
        """As `Client.submit`. A task cancelled in here may or may not have submitted: give an `idempotency_key` where
        that must be found out, and submit again."""
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
        job = core.read_json(await self._send(call))
        return AsyncJobHandle(self, core.read_id(job), None if wait is None else read_view(job))

    def job(self, job_id: str) -> AsyncJobHandle:
        """A handle on a job submitted earlier, by whomever. Asks the gateway nothing yet."""
        return AsyncJobHandle(self, job_id)

    async def jobs(
        self, *, limit: int | None = None, **wanted: Unpack[listing.Filters]
    ) -> AsyncGenerator[JobView, None]:
        """As `Client.jobs`: newest first, fetched page by page as they are taken."""
        pages = listing.Pages(wanted, limit)
        while call := pages.next_call():
            for job in pages.read(await self._send(call)):
                yield job

    async def models(self) -> list[str]:
        """Ids of the models that can be asked for."""
        return read_model_ids(core.read_json(await self._send(core.models_call())))

    async def model(self, model_id: str) -> ModelView:
        """`GET /v1/models/<id>`, also by an alias. Raises ModelNotFound."""
        return read_model(core.read_json(await self._send(core.model_call(model_id))))

    async def fetch(self, job_id: str) -> JobView:
        """`GET /v1/jobs/<id>`. Raises JobNotFound."""
        return read_view(core.read_json(await self._send(core.job_call(job_id))))

    async def replay(
        self,
        job_id: str,
        *,
        any_digest: bool = False,
        job_class: JobClass | str | None = None,
        deadline_seconds: float | None = None,
        idempotency_key: str | None = None,
    ) -> AsyncJobHandle:
        """As `Client.replay`."""
        call = core.replay_call(
            job_id,
            any_digest=any_digest,
            job_class=job_class,
            deadline_seconds=deadline_seconds,
            idempotency_key=idempotency_key,
        )
        return AsyncJobHandle(self, core.read_id(core.read_json(await self._send(call))))

    async def workers(self) -> list[dict[str, Any]]:
        """As `Client.workers`."""
        return read_workers(core.read_json(await self._send(core.workers_call())))

    async def cancel(self, job_id: str) -> JobView:
        """`DELETE /v1/jobs/<id>`, and how the job stands after it; one that had ended stays as it was."""
        await self._send(core.cancel_call(job_id))
        return await self.fetch(job_id)

    async def as_completed(
        self, handles: Iterable[AsyncJobHandle], timeout: float | None = None
    ) -> AsyncGenerator[AsyncJobHandle, None]:
        """As `Client.as_completed`: each handle once, in the order in which the jobs end."""
        rounds = Rounds(handles, timeout, time.monotonic())
        while asked := rounds.take():
            ended = await _all_ended(asked)
            for handle in asked:
                if handle not in ended:
                    rounds.put_back(handle)
            for handle in ended:
                yield handle
            await asyncio.sleep(rounds.pause(time.monotonic()))

    async def events(self, job_id: str, cursor: str = "") -> AsyncGenerator[tuple[Event, str], None]:
        """As `Client.events`: a job's events and the cursor behind each, with no gap and no repeat."""
        following = Following(self._gateways, job_id, cursor, self._patience, time.monotonic())
        while True:
            async with aclosing(self._connection(following)) as events:
                async for shown in events:
                    yield shown
            if following.ended or (following.doubtful and (await self.fetch(job_id)).ended):
                return
            await asyncio.sleep(following.pause(time.monotonic(), random.random()))

    async def _connection(self, following: Following) -> AsyncGenerator[tuple[Event, str], None]:
        """One connection's worth of events, until it ends or leaves a gap."""
        call = following.open()
        outcome: core.Outcome | None = None
        try:
            async with self._http.stream(
                call.method, following.url + call.path, headers=call.headers, timeout=endpoint.STREAM_TIMEOUT
            ) as response:
                if response.status_code >= 400:
                    outcome, self._gateways.met = endpoint.reply_of(response, await response.aread()), True
                    return
                if outcome := endpoint.no_events(response, self._gateways):
                    return
                async for chunk in response.aiter_bytes():
                    for shown in following.feed(chunk, time.monotonic()):
                        yield shown
                        following.heard(time.monotonic())
                    if following.spoilt:
                        return
        except httpx2.RequestError as error:
            outcome = endpoint.broken_by(error, met=self._gateways.met)
        finally:
            following.close(outcome)

    async def _send(self, call: core.Call) -> core.Reply:
        attempts = Attempts(self._gateways, call, self._patience, time.monotonic())
        while True:
            judged = attempts.judge(await self._try(attempts.url, call), time.monotonic(), random.random())
            if isinstance(judged, core.Reply):
                return judged
            await asyncio.sleep(judged)

    async def _try(self, url: str, call: core.Call) -> core.Outcome:
        try:
            response = await self._http.request(
                call.method,
                url + call.path,
                headers=endpoint.headers_of(call),
                content=call.content,
                timeout=endpoint.timeout_of(call),
            )
        except httpx2.RequestError as error:
            return endpoint.broken_by(error, met=self._gateways.met)
        return endpoint.outcome_of(response, call, self._gateways)


async def _all_ended(handles: list[AsyncJobHandle]) -> list[AsyncJobHandle]:
    """Those that have ended, all asked at once. Leaves no question behind when one fails or the task is cancelled."""
    questions = [asyncio.create_task(_ended(handle)) for handle in handles]
    try:
        answers = await asyncio.gather(*questions)
    finally:
        for question in questions:
            question.cancel()
        await asyncio.gather(*questions, return_exceptions=True)
    return [handle for handle, ended in zip(handles, answers, strict=True) if ended]


async def _ended(handle: AsyncJobHandle) -> bool:
    try:
        return (await handle.refresh()).ended
    except JobNotFound:
        return True  # its `wait` says so; the others are still waited for
