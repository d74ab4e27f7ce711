"""One WebSocket of one job: its events out, `cancel` and `ping` in. Knows messages and close codes, no journal.

Every message is a JSON object. Events carry their `cursor` beside the fields that all ways out share. What a client
says that is not understood is answered and the connection goes on, for a while: MOST_GARBAGE times.
"""

import asyncio
import time
from typing import Any

import orjson
import structlog
from starlette.websockets import WebSocket, WebSocketDisconnect

from gateway.errors import ClientGone, stopping
from gateway.event_stream import SEND_TIMEOUT_S
from gateway.lookup import cursor_of, expired, find
from gateway.patience import patience
from gateway.reader import text_streams
from gateway.services import Services
from headrace.cancelling import end_tasks
from headrace.contract.errors import HeadraceError, InvalidRequest, JournalExpired
from headrace.contract.events import to_json
from headrace.contract.job import Job
from headrace.openai.projection import error_body

MOST_GARBAGE = 10
MOST_CHARACTERS = 4_096
DONE, LOST, POLICY, FAILED, RESTART = 1000, 1006, 1008, 1011, 1012
_STATUS_OF = {DONE: 101, POLICY: 400, FAILED: 500, RESTART: 503}
"""As which HTTP status a close of ours is counted; codes above 4000 say theirs."""
_LOOK_S = 60.0

_log = structlog.get_logger(__name__)


class SocketSession:
    """Lives as long as its connection. Reading and sending are two tasks; a slow reader holds up both, not the job."""

    def __init__(self, services: Services, websocket: WebSocket) -> None:
        self._services = services
        self._websocket = websocket
        self._sending = asyncio.Lock()
        self._close_code = 0
        self._status = 0

    async def run(self, job_id: str) -> None:
        """From the handshake to the close, which is logged by its code and counted like an HTTP reply: as 101 once it
        is open, whatever its client does, or by the error that we end it with."""
        request_id = structlog.contextvars.get_contextvars()["request_id"]
        began = time.perf_counter()
        with self._services.metrics.open_websockets.track_inprogress():
            try:
                await self._websocket.accept(headers=[(b"x-request-id", request_id.encode())])
                self._status = 101
                await self._close(*await self._talk(job_id))
            except (ClientGone, WebSocketDisconnect, OSError) as gone:
                self._close_code = int(getattr(gone, "code", LOST))
            finally:
                self._report(time.perf_counter() - began)

    async def _talk(self, job_id: str) -> tuple[int, str]:
        """The conversation, and the code and reason of its end. Errors are said before the close."""
        try:
            job = await find(self._services, job_id)
            return await self._until_over(job)
        except HeadraceError as error:
            await self._send(_error(error))
            return 4000 + error.status, error.code
        except (ClientGone, WebSocketDisconnect, OSError):
            raise
        except Exception:  # noqa: BLE001
            # The handshake is long done, so all that is left is to say so here; the job goes on.
            _log.exception("gateway.socket_failed")
            await self._send(_error(HeadraceError("Something went wrong here.")))
            return FAILED, "internal_error"

    async def _until_over(self, job: Job) -> tuple[int, str]:
        events = asyncio.create_task(self._tell(job))
        commands = asyncio.create_task(self._obey(job))
        closing = asyncio.create_task(self._services.closing.wait())
        tasks: tuple[asyncio.Task[Any], ...] = (events, commands, closing)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in (events, commands):
                if task.done():
                    return task.result()
            await self._send(_error(stopping()))
            return RESTART, "service restart"
        finally:
            await end_tasks(*tasks)

    async def _tell(self, job: Job) -> tuple[int, str]:
        cursor = cursor_of(self._websocket.query_params.get("cursor"), job)
        new_stream = await text_streams(self._services, job)
        try:
            async with self._services.relay.follow(job, cursor, new_stream) as road, patience(SEND_TIMEOUT_S) as watch:
                while not road.ended:
                    event = await road.next(_LOOK_S)
                    if event is not None:
                        watch.begin()
                        await self._write({**to_json(event), "cursor": str(road.cursor)})
                        watch.end()
        except JournalExpired as error:
            raise expired(job, error) from None
        return DONE, "the job has ended"

    async def _obey(self, job: Job) -> tuple[int, str]:
        """Until the client has sent too much that means nothing, or left."""
        garbage = 0
        while garbage < MOST_GARBAGE:
            try:
                await self._do(job, await self._hear())
            except InvalidRequest as error:
                garbage += 1
                await self._send(_error(error))
                if error.status == 413:
                    return POLICY, "message too long"
            except HeadraceError as error:
                await self._send(_error(error))
        return POLICY, "too many messages that mean nothing"

    async def _do(self, job: Job, said: object) -> None:
        match said:
            case {"type": "ping"}:
                await self._send({"type": "pong"})
            case {"type": "cancel"}:
                await self._services.queue.cancel(job.id)
                _log.info("gateway.cancelled", job=job.id, reason="asked for through its socket")
            case _:
                raise InvalidRequest(
                    "This message means nothing here.", next_step='Send {"type":"cancel"} or {"type":"ping"}.'
                )

    async def _hear(self) -> object:
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1006), message.get("reason"))
        text = message.get("text")
        if text is None:
            raise InvalidRequest("A binary message.", next_step="Send JSON as text.")
        if len(text) > MOST_CHARACTERS:
            raise _TooLong(f"The message has more than {MOST_CHARACTERS} characters.")
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            raise InvalidRequest("The message is not valid JSON.", next_step='Send {"type":"ping"}.') from None

    async def _send(self, message: dict[str, Any]) -> None:
        async with patience(SEND_TIMEOUT_S) as watch:
            watch.begin()
            await self._write(message)

    async def _write(self, message: dict[str, Any]) -> None:
        try:
            async with self._sending:
                await self._websocket.send_text(orjson.dumps(message).decode())
        except RuntimeError as error:  # Starlette's word for a connection that is closed
            raise ClientGone from error

    async def _close(self, code: int, reason: str) -> None:
        self._close_code = code
        self._status = _STATUS_OF.get(code) or code - 4000
        async with asyncio.timeout(SEND_TIMEOUT_S):
            await self._websocket.close(code, reason)

    def _report(self, seconds: float) -> None:
        route = getattr(self._websocket.scope.get("route"), "path", "unknown")
        self._services.metrics.requests.labels(route, "WEBSOCKET", str(self._status)).inc()
        self._services.metrics.request_seconds.labels(route).observe(seconds)
        _log.info(
            "gateway.socket", path=self._websocket.scope["path"], code=self._close_code, seconds=round(seconds, 4)
        )


class _TooLong(InvalidRequest):
    status = 413


def _error(error: HeadraceError) -> dict[str, Any]:
    return {"type": "error", **error_body(error)}
