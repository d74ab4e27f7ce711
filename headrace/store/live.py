"""Live events for one process: one pub/sub connection, shared by any number of listeners. Knows no journal.

What is heard here is a hint that is usually right: a listener that is told "nothing" reads the journal, which is the
truth. So a full buffer, a lost connection and silence are all answered by the same None.
"""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import hiredis
import orjson
import redis.asyncio
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from headrace.cancelling import end_tasks
from headrace.contract import events
from headrace.contract.errors import StoreUnavailable
from headrace.contract.events import Event
from headrace.store import keys

MOST_BUFFERED = 1000
"""Events that wait for one slow reader before it is sent to the journal."""

_PAUSES_S = (0.05, 0.1, 0.2, 0.5, 1.0)
_MOST_READ = 65_536
_NOTHING = object()  # hiredis' word for a buffer without a whole message


class Listener:
    """One reader's ear for one job. Not for two tasks at once."""

    def __init__(self) -> None:
        self._buffer: deque[Event] = deque()
        self._missed = False
        self._waiter: asyncio.Future[None] | None = None

    async def next(self, timeout_s: float) -> Event | None:
        """The next event; None after `timeout_s` of silence, and at once when something may have been missed.

        Waits for nothing where `timeout_s` is 0 or something has been heard already.
        """
        if not self._buffer and not self._missed and timeout_s > 0:
            await self._news(timeout_s)
        if self._missed:
            self._missed = False
            return None
        return self._buffer.popleft() if self._buffer else None

    def hear(self, event: Event) -> None:
        if len(self._buffer) >= MOST_BUFFERED:
            self.miss()
        else:
            self._buffer.append(event)
            self._wake()

    def miss(self) -> None:
        """Forget what waits: the journal has it."""
        self._buffer.clear()
        self._missed = True
        self._wake()

    async def _news(self, timeout_s: float) -> None:
        # By hand and not with asyncio.timeout, which costs more than all else that is done for an event.
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = loop.call_later(timeout_s, self._wake)
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class _Channel:
    """Who listens to one channel, and whether the server has said that it sends."""

    def __init__(self) -> None:
        self.listeners: set[Listener] = set()
        self.acknowledged = asyncio.Event()
        self.interrupted = False

    def acknowledge(self) -> None:
        if self.interrupted:
            for listener in self.listeners:
                listener.miss()
        self.interrupted = False
        self.acknowledged.set()

    def interrupt(self) -> None:
        self.interrupted = True
        self.acknowledged.clear()


class LiveHub:
    """Owns the connection and the task that reads it; the task starts with the first listener and ends in `close`."""

    def __init__(self, client: redis.asyncio.Redis, *, acknowledge_s: float = 5.0, ping_s: float = 5.0) -> None:
        """`acknowledge_s` limits the wait for a subscription; after twice `ping_s` of silence a connection is dead."""
        self._pool = client.connection_pool
        self._acknowledge_s = acknowledge_s
        self._ping_s = ping_s
        self._channels: dict[str, _Channel] = {}
        self._awaited: Counter[str] = Counter()  # subscriptions sent and not yet acknowledged, by channel
        self._connection: AbstractConnection | None = None
        self._sending = asyncio.Lock()
        self._left: set[str] = set()  # channels that nobody listens to any more, and that are still subscribed
        self._reader: asyncio.Task[None] | None = None
        self._leaver: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def listen(self, job_id: str) -> AsyncIterator[Listener]:
        """Hear a job's events. The block is entered once the server has acknowledged the subscription.

        Raises StoreUnavailable when it does not do so in time.
        """
        name, listener = keys.live(job_id), Listener()
        if self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._read_forever(), name="live-hub")
        channel = self._channels.setdefault(name, _Channel())
        first = not channel.listeners
        channel.listeners.add(listener)
        asked = self._connection
        try:
            try:
                async with asyncio.timeout(self._acknowledge_s):
                    if first:
                        await self._subscribe(name)
                    await channel.acknowledged.wait()
            except TimeoutError:
                await self._drop(asked)
                raise StoreUnavailable("Redis did not acknowledge a subscription to live events.") from None
            yield listener
        finally:
            channel.listeners.discard(listener)
            if not channel.listeners and self._channels.get(name) is channel:
                del self._channels[name]
                self._leave(name)

    async def close(self) -> None:
        """End the tasks and the connection; listeners hear nothing more."""
        await end_tasks(*(task for task in (self._reader, self._leaver) if task is not None))
        self._reader = self._leaver = None

    async def _subscribe(self, name: str) -> None:
        """Send if there is a connection. If not, or it breaks, the reader subscribes to all when it has a new one."""
        async with self._sending:
            if self._connection is not None:
                self._awaited[name] += 1
                await self._send("SUBSCRIBE", name)

    async def _send(self, *command: str) -> None:
        """To the connection that is read. In place of a closed one redis-py would open another, which nobody reads."""
        if self._connection is not None and self._connection.is_connected:
            with suppress(RedisError, OSError):
                await self._connection.send_command(*command)

    async def _drop(self, connection: AbstractConnection | None) -> None:
        """One that does not acknowledge is dead, however short its silence: the reader makes another one."""
        if connection is not None and connection is self._connection:
            self._connection = None
            with suppress(RedisError, OSError):
                await connection.disconnect(nowait=True)

    def _leave(self, name: str) -> None:
        """Waits for nothing: whoever leaves may be cancelled, and cancelled again while it does."""
        self._left.add(name)
        if self._leaver is None or self._leaver.done():
            self._leaver = asyncio.create_task(self._unsubscribe(), name="live-hub-leaver")

    async def _unsubscribe(self) -> None:
        while self._left:
            async with self._sending:
                # Asked under the lock: a name that is listened to again stays subscribed.
                names, self._left = self._left - self._channels.keys(), set()
                if names:
                    await self._send("UNSUBSCRIBE", *names)

    async def _read_forever(self) -> None:
        failures = 0
        while True:
            connection: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]
            try:
                await connection.connect()  # type: ignore[no-untyped-call]
                await self._subscribe_all(connection)
                failures = 0
                await self._read(connection)
            except (RedisError, OSError, hiredis.ProtocolError):
                # Goes on below: listeners are told by the acknowledgement of the next subscription.
                failures += 1
            finally:
                self._connection = None
                for channel in self._channels.values():
                    channel.interrupt()
                with suppress(RedisError, OSError):
                    await connection.disconnect()
            await asyncio.sleep(_PAUSES_S[min(failures, len(_PAUSES_S)) - 1])

    async def _subscribe_all(self, connection: AbstractConnection) -> None:
        async with self._sending:
            self._awaited.clear()
            if self._channels:
                self._awaited.update(self._channels.keys())
                await connection.send_command("SUBSCRIBE", *self._channels)
            self._connection = connection

    async def _read(self, connection: AbstractConnection) -> None:
        """Whole buffers, and all messages in one: read one by one, each would cost a timer and a task's turn."""
        # redis-py has connected and said who we are; from here on nobody but us reads its stream.
        stream = connection._reader
        assert stream is not None
        parser = hiredis.Reader(notEnoughData=_NOTHING)
        asked = False
        while True:
            try:
                async with asyncio.timeout(self._ping_s):
                    data = await stream.read(_MOST_READ)
            except TimeoutError:
                if asked:
                    raise redis.exceptions.ConnectionError("Redis has gone silent.") from None
                asked = True
                async with self._sending:
                    await connection.send_command("PING")
                continue
            if not data:
                raise redis.exceptions.ConnectionError("Redis has closed the connection.")
            asked = False
            parser.feed(data)
            while (message := parser.gets()) is not _NOTHING:
                if isinstance(message, Exception):
                    raise redis.exceptions.ResponseError(str(message))
                if isinstance(message, list):
                    self._dispatch(message)

    def _dispatch(self, message: list[Any]) -> None:
        kind = message[0]
        if kind not in (b"message", b"subscribe"):
            return
        name = message[1].decode()
        channel = self._channels.get(name)
        if kind == b"subscribe":
            self._awaited[name] -= 1
            # An acknowledgement of an earlier subscription says nothing about a later one.
            if self._awaited[name] <= 0:
                del self._awaited[name]
                if channel is not None:
                    channel.acknowledge()
        elif channel is not None:
            self._tell(channel, message[2])

    @staticmethod
    def _tell(channel: _Channel, data: bytes) -> None:
        try:
            event = events.from_json(orjson.loads(data))
        except (KeyError, TypeError, ValueError):
            # Anyone may publish here. The journal tells what really happened.
            for listener in channel.listeners:
                listener.miss()
            return
        for listener in channel.listeners:
            listener.hear(event)
